"""Quality maps of the `light` preset: what the score loses with each patch.

Mean and deviation over the patches are pooled features, so what they become without one patch is
known exactly (`leave_one_out`); times the score's derivatives by the features (`gradient`) that is
what the patch does to the score. The class token has no place and is in no map. The whole image
and the close-up are added on the whole image's grid, which is then smoothed: a single patch of a
transformer says little about its own place.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from agiqa.runs.explain.gradient import score_gradient
from agiqa.runs.explain.leave_one_out import changes
from agiqa.runs.explain.placing import placed
from agiqa.runs.explain.quality_map import QualityMap
from agiqa.stage1.extractors import VisionExtractor
from agiqa.stage2.light.ensemble import Ensemble

AT_ONCE = 4  # images in the tower: their patches are 8 MB each
SMOOTHED = 0.75  # cells, the deviation of the Gaussian
METHOD = (
    "What the score loses with each place: the patches' part in the pooled visual features, times "
    "the score's derivatives by these, against the image's other places."
)


def light_maps(
    ensemble: Ensemble,
    extractor: VisionExtractor,
    images: Sequence[Image.Image],
    visual: np.ndarray,
    semantic: np.ndarray,
) -> list[QualityMap]:
    """The maps of B images.

    Args:
        ensemble: of the preset light.
        extractor: of its visual features.
        images: RGB.
        visual: their features `(B, F)`.
        semantic: their semantic vectors `(B, P, D)`.
    """
    gradient = score_gradient(ensemble, visual, semantic)
    maps = []
    for start in range(0, len(images), AT_ONCE):
        samples = [extractor.preprocess(image) for image in images[start : start + AT_ONCE]]
        seen = extractor.patches(samples)
        for place in range(len(samples)):
            states = [[layer[place] for layer in view] for view in seen]
            values = effects(extractor, states, gradient[start + place])
            smooth = gaussian_filter(values, SMOOTHED, mode="nearest")
            unit = f"MOS, 1 place of {smooth.size}"
            maps.append(QualityMap(smooth.astype(np.float32), (0.0, 0.0, 1.0, 1.0), METHOD, unit))
    return maps


def effects(
    extractor: VisionExtractor, states: Sequence[Sequence[np.ndarray]], gradient: np.ndarray
) -> np.ndarray:
    """What the score loses with each cell `(h, w)` of the whole image's patches.

    Args:
        extractor: what made the states.
        states: by view and layer, the patches' hidden states `(n, C)`.
        gradient: derivatives of the score by the features `(F,)`.
    """
    by_vector = iter(gradient.reshape(len(extractor.vectors), -1))
    side = int(np.sqrt(len(states[0][0])))
    total = np.zeros((side, side))
    for view, layers in zip(extractor.views, states, strict=True):
        lost = np.zeros(len(layers[0]))
        for patches in layers:
            lost -= changes(patches, extractor.settings.pool) @ next(by_vector)
        square = int(np.sqrt(len(lost)))
        total += placed(lost.reshape(square, square), view.box, side)
    return total
