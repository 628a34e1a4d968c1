"""Quality maps of the preset `tuned`: those of the frozen experts and of the tail, by their shares.

The tail's: what the score would lose if a patch's token were the mean of the image's patches, by
its derivatives (to first order). Both are on the MOS scale, so that they add up.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from agiqa.runs.explain.maps import AT_ONCE, SMOOTHED, light_maps, on_grid
from agiqa.runs.explain.quality_map import WHOLE, QualityMap
from agiqa.stage1.extractors import TokenExtractor, VisionExtractor
from agiqa.stage2.tuned.ensemble import TunedEnsemble, tokens_on

METHOD = (
    "What the score loses with each place: the frozen experts' part as the preset light has it, "
    "the tuned blocks' by the score's derivatives by their tokens; each by its share."
)


def tuned_maps(
    ensemble: TunedEnsemble,
    vision: VisionExtractor,
    tokens: TokenExtractor,
    images: Sequence[Image.Image],
    visual: np.ndarray,
    semantic: np.ndarray,
) -> list[QualityMap]:
    """Make the maps of B RGB images of features `(B, F)` and semantic vectors `(B, P, D)`."""
    weights = [(blend.mixture.scale[0] * blend.mixture.shares[:, 0]).tolist()
               for blend in ensemble.blends]  # fmt: skip
    frozen = light_maps(
        ensemble.light, vision, images, visual, semantic, [frozen for frozen, _ in weights]
    )
    maps = []
    for start in range(0, len(images), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        samples = [tokens.preprocess(image) for image in images[rows]]
        (states,) = tokens.extract(samples, [0])
        values = _effects(ensemble, states, semantic[rows], [tail for _, tail in weights])
        for light, own in zip(frozen[rows], values, strict=True):
            cells = on_grid(own, WHOLE, len(light.values))
            smooth = gaussian_filter(cells, SMOOTHED, mode="nearest").astype(np.float32)
            maps.append(replace(light, values=light.values + smooth, method=METHOD))
    return maps


def _effects(
    ensemble: TunedEnsemble, tokens: np.ndarray, semantic: np.ndarray, weights: Sequence[float]
) -> np.ndarray:
    """What the score loses with each patch `(B, g, g)`, mean over the splits, by the tails alone.

    Tokens are `(B, L * C)`, semantic vectors `(B, P, D)`; weights are of each split's tail in its
    score.
    """
    config, network = ensemble.config, ensemble.network
    device = next(network.parameters()).device
    states = tokens_on(tokens, config, device).requires_grad_()
    vectors = torch.from_numpy(semantic).to(device)
    gradient = torch.zeros_like(states)
    for tail, split, weight in zip(ensemble.tails, ensemble.light.splits, weights, strict=True):
        network.load_state_dict(tail)
        (own,) = torch.autograd.grad(network(states, vectors).sum(), states)
        gradient += weight * float(split.scales.sd[0, 0]) * own / len(weights)
    patches, slopes = (part[:, -config.patches :] for part in (states.detach(), gradient))
    lost = (slopes * (patches - patches.mean(dim=1, keepdim=True))).sum(dim=2)
    side = int(config.patches**0.5)
    return np.asarray(lost.unflatten(1, (side, side)).cpu().numpy(), dtype=np.float64)
