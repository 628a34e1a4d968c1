"""Quality maps: what each place does to the score, by the preset that a run was fitted with.

**light**: what the score loses with each patch. Mean and deviation over the patches are pooled
features, so what they become without one patch is known exactly (`changes`); times the score's
derivatives by the features (`score_gradient`) that is what the patch does to the score. The class
token has no place and is in no map. The whole image and the close-up are added on the whole image's
grid, which is then smoothed: a single patch of a transformer says little about its own place.

**tuned**: that of the frozen experts and that of the tail, by their shares. The tail's: what the
score would lose if a patch's token were the mean of the image's patches, by its derivatives (to
first order). Both are on the MOS scale, so that they add up.

**paper**: what the network itself says of each patch.

A map is drawn over its image: orange pulls the score down, blue pulls it up, grey does neither. The
image itself turns grey and a little flat, so that every colour, on dark pictures too, is the map's.
Orange and blue are told apart with every common colour vision deficiency; the strongest places
carry an outline as well, solid below and dotted above zero, for those who see neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from agiqa.data.images import as_rgb
from agiqa.stage1.extractors import TokenExtractor, VisionExtractor
from agiqa.stage2.light.ensemble import Ensemble, ExpertInputs
from agiqa.stage2.tuned.ensemble import TunedEnsemble, tokens_on

Box = tuple[float, float, float, float]  # left, top, right, bottom in shares of the image
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

AT_ONCE = 4  # images in the tower: their patches are 8 MB each
SMOOTHED = 0.75  # cells, the deviation of the Gaussian
OF_LIGHT = (
    "What the score loses with each place: the patches' part in the pooled visual features, times "
    "the score's derivatives by these, against the image's other places."
)
OF_TUNED = (
    "What the score loses with each place: the frozen experts' part as the preset light has it, "
    "the tuned blocks' by the score's derivatives by their tokens; each by its share."
)
OF_PAPER = (
    "The network's own patch scores times patch weights, less their mean over the image, averaged "
    "over the splits."
)

DOWN, UP = (214, 84, 0), (0, 92, 200)
OPAQUE = 0.8  # of the strongest colour
BLACK, WHITE = 60, 225  # of the grey image, so that dark and light places can take colour
OUTLINED = 0.5  # of the peak: cells beyond it are outlined
LEAST_WIDTH = 96  # pixels; a legend below a narrower picture could not be read
PAPER, INK = (250, 250, 250), (30, 30, 30)


@dataclass(frozen=True, eq=False)
class QualityMap:
    """A grid over an image, in units of the MOS.

    A value is the score less the score without the place: above zero the place pulls the score up,
    below zero down. It is measured against the image's other places, so that the values of one
    image sum to about zero; what all places share is in no map.
    """

    values: np.ndarray  # (h, w) float32
    method: str  # one sentence for a caption
    unit: str = "MOS a place"

    @property
    def peak(self) -> float:
        """Give the largest absolute value of the map."""
        return float(np.abs(self.values).max())

    @property
    def weakest(self) -> str:
        """Where the score is pulled down most, in words such as upper left."""
        rows, columns = self.values.shape
        row, column = np.unravel_index(int(np.argmin(self.values)), self.values.shape)
        down = ("upper", "middle", "lower")[3 * int(row) // rows]
        across = ("left", "centre", "right")[3 * int(column) // columns]
        return "centre" if (down, across) == ("middle", "centre") else f"{down} {across}"

    def overlay(self, image: Image.Image, peak: float | None = None) -> Image.Image:
        """Draw the map over its image: RGB, as wide; a legend below adds to the height.

        Args:
            image: the picture that the map is of; one narrower than LEAST_WIDTH gets no legend.
            peak: the value of the full colours; by default the map's own peak.
        """
        peak = self.peak if peak is None else peak
        picture = as_rgb(image)
        scaled = np.clip(self.values / peak if peak > 0 else np.zeros_like(self.values), -1, 1)
        cells = Image.fromarray(scaled.astype(np.float32))
        strength = np.asarray(cells.resize(picture.size, Image.Resampling.BICUBIC))[..., None]
        grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
        base = BLACK + grey * ((WHITE - BLACK) / 255)
        colour = np.where(strength < 0, np.array(DOWN), np.array(UP))
        alpha = OPAQUE * np.clip(np.abs(strength), 0, 1)
        mixed = Image.fromarray(np.uint8(np.clip(base + alpha * (colour - base), 0, 255)))
        _outline(mixed, scaled)
        return mixed if mixed.width < LEAST_WIDTH else _with_legend(mixed, peak, self.unit)


def _outline(picture: Image.Image, scaled: np.ndarray) -> None:
    """Draw the edges between outlined cells and others, dotted where they pull up."""
    draw = ImageDraw.Draw(picture)
    rows, columns = scaled.shape
    x = np.linspace(0, picture.width - 1, columns + 1).round().astype(int)
    y = np.linspace(0, picture.height - 1, rows + 1).round().astype(int)
    width = max(1, round(picture.width / 300))
    for outlined, colour, points in (
        (scaled < -OUTLINED, (120, 40, 0), 2),
        (scaled > OUTLINED, (0, 40, 120), 8),
    ):
        framed = np.pad(outlined, 1).astype(int)
        level = np.argwhere(np.diff(framed, axis=0)[:, 1:-1])
        upright = np.argwhere(np.diff(framed, axis=1)[1:-1])
        edges = [(x[column], y[row], x[column + 1], y[row]) for row, column in level]
        edges += [(x[column], y[row], x[column], y[row + 1]) for row, column in upright]
        for edge in edges:
            ends = np.linspace(edge[:2], edge[2:], points)
            for start, end in zip(ends[::2], ends[1::2], strict=True):
                draw.line((*start, *end), colour, width)


def _with_legend(picture: Image.Image, peak: float, unit: str) -> Image.Image:
    """A strip below: which side pulls which way, and how far at full colour."""
    size = max(10, min(22, picture.width // 28))
    font = ImageFont.load_default(size)
    down, up = f"pulls down -{peak:.2g}", f"+{peak:.2g} pulls up"
    bar, gap = size, size // 2
    height = bar + size + 3 * gap
    whole = Image.new("RGB", (picture.width, picture.height + height), PAPER)
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    top, wide = picture.height + gap, picture.width - 2 * gap
    for column in range(wide):
        value = 2 * column / max(1, wide - 1) - 1
        colour = np.array(DOWN if value < 0 else UP)
        shade = np.array(PAPER) + OPAQUE * abs(value) * (colour - np.array(PAPER))
        x = gap + column
        draw.line((x, top, x, top + bar), (int(shade[0]), int(shade[1]), int(shade[2])))
    text = top + bar + gap // 2
    draw.text((gap, text), down, INK, font)
    draw.text((picture.width - gap - draw.textlength(up, font), text), up, INK, font)
    if draw.textlength(down + unit + up, font) + 4 * gap < picture.width:
        draw.text(((picture.width - draw.textlength(unit, font)) / 2, text), unit, INK, font)
    return whole


def paper_map(values: np.ndarray) -> QualityMap:
    """Make the map of an image from the network's patch scores times weights `(h, w)`."""
    centred = (values - values.mean()).astype(np.float32)
    return QualityMap(centred, OF_PAPER, "patch score × weight")


def light_maps(
    ensemble: Ensemble,
    extractor: VisionExtractor,
    images: Sequence[Image.Image],
    visual: np.ndarray,
    semantic: np.ndarray,
    weights: Sequence[float] = (),
) -> list[QualityMap]:
    """Make the maps of B RGB images from their features `(B, F)` and semantic vectors `(B, P, D)`.

    `weights` are of each split's score in the whole, by default 1.
    """
    gradient = score_gradient(ensemble, visual, semantic, weights)
    maps = []
    for start in range(0, len(images), AT_ONCE):
        samples = [extractor.preprocess(image) for image in images[start : start + AT_ONCE]]
        patches = extractor.patches(samples)
        for row in range(len(samples)):
            states = [[layer[row] for layer in view] for view in patches]
            values = effects(extractor, states, gradient[start + row])
            smooth = gaussian_filter(values, SMOOTHED, mode="nearest")
            unit = f"MOS, 1 place of {smooth.size}"
            maps.append(QualityMap(smooth.astype(np.float32), OF_LIGHT, unit))
    return maps


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
        values = tail_effects(ensemble, states, semantic[rows], [tail for _, tail in weights])
        for light, own in zip(frozen[rows], values, strict=True):
            cells = on_grid(own, WHOLE, len(light.values))
            smooth = gaussian_filter(cells, SMOOTHED, mode="nearest").astype(np.float32)
            maps.append(replace(light, values=light.values + smooth, method=OF_TUNED))
    return maps


def score_gradient(
    ensemble: Ensemble, visual: np.ndarray, semantic: np.ndarray, weights: Sequence[float] = ()
) -> np.ndarray:
    """Derivatives `(B, F)` of the scores, on the MOS scale, by the visual features.

    By the ensemble's own path: projection, the visual expert's kernel ridge, the gate; the semantic
    vectors `(B, P, D)` stay as they are. The mean over splits, weighted if they have weights, as
    the score is: the run's first target, on the scale of its first data set.
    """
    first = ensemble.experts[0]
    inputs = ensemble.inputs(visual, semantic)
    components = inputs.components[0].clone().requires_grad_(True)  # (B, k)
    moved = ExpertInputs(
        (components, *inputs.components[1:]), (first.kernel(components), *inputs.kernels[1:])
    )
    scores = torch.stack([split.mix(moved)[0][:, 0] for split in ensemble.splits])  # (S, B)
    weighed = scores * torch.tensor(weights)[:, None] if weights else scores
    (by_component,) = torch.autograd.grad(weighed.mean(dim=0).sum(), components)
    by_feature = (by_component.numpy() @ first.projection.wide.T) / first.projection.scale
    return np.asarray(by_feature, dtype=np.float32)


def effects(
    extractor: VisionExtractor, states: Sequence[Sequence[np.ndarray]], gradient: np.ndarray
) -> np.ndarray:
    """What the score loses with each cell `(h, w)` of the whole image's patches.

    Their hidden states `(n, C)` come by view and layer, the score's derivatives by feature `(F,)`.
    """
    by_vector = iter(gradient.reshape(len(extractor.vectors), -1))
    side = int(np.sqrt(len(states[0][0])))
    total = np.zeros((side, side))
    for view, layers in zip(extractor.views, states, strict=True):
        lost = np.zeros(len(layers[0]))
        for patches in layers:
            lost -= changes(patches, extractor.settings.pool) @ next(by_vector)
        square = int(np.sqrt(len(lost)))
        total += on_grid(lost.reshape(square, square), view.box, side)
    return total


def changes(patches: np.ndarray, pools: Sequence[str]) -> np.ndarray:
    """Pooled features of a layer without a patch less those with it, for each of n patches.

    Exact and without another look at the image: the mean and the deviation of the other patches
    follow from the sums. The class token saw all patches and stays as it is.

    Args:
        patches: hidden states `(n, C)`, n at least 3.
        pools: some of cls, mean, std, in the order of the features.

    Returns:
        `(n, pools * C)` float32; zero for cls.
    """
    count = len(patches)
    states = patches.astype(np.float64)
    off = states - states.mean(axis=0)
    squares = np.square(off)
    total = squares.sum(axis=0)
    rest = np.maximum(total - squares * (count / (count - 1)), 0)
    by_pool = {
        "cls": np.zeros_like(off),
        "mean": -off / (count - 1),
        "std": np.sqrt(rest / (count - 2)) - np.sqrt(total / (count - 1)),
    }
    return np.concatenate([by_pool[pool] for pool in pools], axis=1).astype(np.float32)


def on_grid(values: np.ndarray, box: Box, side: int) -> np.ndarray:
    """Share patches `(h, w)` over `box` out to cells `(side, side)` over the whole image.

    By the area of their overlap, so that sums are kept: two views of an image, of other sizes and
    parts of it, may be added.
    """
    left, top, right, bottom = box
    rows, columns = values.shape
    down, across = _shares(rows, top, bottom, side), _shares(columns, left, right, side)
    return np.asarray(down @ values @ across.T)


def _shares(patches: int, start: float, end: float, side: int) -> np.ndarray:
    """`(side, patches)`: the share of each patch's length that lies in each cell."""
    edges, cells = np.linspace(start, end, patches + 1), np.linspace(0, 1, side + 1)
    length = np.minimum(cells[1:, None], edges[None, 1:]) - np.maximum(
        cells[:-1, None], edges[None, :-1]
    )
    return np.asarray(np.clip(length, 0, None) * (patches / (end - start)))


def tail_effects(
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
