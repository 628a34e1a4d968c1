"""What the `paper` presets train on and are tested on: pixels, and two semantic vectors an image.

Beside `features`, which does the same for the `light` preset, with rows as there. In training the
pixels are flipped and turned: the random draws are made for a whole step on the CPU, so that they
do not depend on how many processes share it; the pixels are turned where they are used. After
MA-AGIQA's utils/process.py, whose "horizontal" flip acts on a channels-first array and so turns
images upside down.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage2.contract import Rows
from agiqa.stage2.features import VISUAL, choose_vectors, describe_store, without_left_out
from agiqa.stage2.paper.network import SEMANTIC
from agiqa.stage2.paper.pixels import Pixels, describe_pixels, open_pixels
from agiqa.stage2.presets import Recipe
from agiqa.store import read_pack

# Of the uint8 pixels (B, H, W, 3).
FLIPS = {"vertical": 0, "horizontal": 1}  # axis of one image (H, W, 3)
TURNS = (0.33, 0.33, 0.34)  # the authors' shares of 90, 180 and 270 degrees


@dataclass(frozen=True, eq=False)
class PaperInputs:
    """One row for each row of the images table."""

    image_ids: tuple[str, ...]  # of the N images
    pixels: Pixels
    semantic: np.ndarray  # (N, 2, D) float32
    prompts: tuple[str, ...]  # names of the two semantic vectors
    stores: Mapping[str, Any]  # what they were made by, for provenance: visual and semantic

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts in the gate's order."""
        return (*self.prompts, VISUAL)


def load_paper_inputs(
    table: ImagesTable,
    semantic: Path,
    size: int,
    workers: int,
    ledger: Path | None = None,
    patterns: Sequence[str] = (),
) -> tuple[ImagesTable, PaperInputs]:
    """Read the semantic store in bulk, decode what was not decoded yet, align both with the table.

    Args:
        table: the images.
        semantic: the store of semantic vectors.
        size: pixels a side of the regressor's input.
        workers: threads that decode.
        ledger: where pixels are kept; by default `agiqa.store.default_root()`.
        patterns: names of the two semantic vectors, or shell-style patterns; none: all there are.

    Returns:
        The table without the images that `extract --skip-bad` left out, and its inputs.

    Raises:
        AgiqaError: the store is absent, damaged or foreign, lacks images, or has not two such
            vectors an image; or images are absent or changed.
    """
    store = read_pack(semantic)
    chosen = choose_vectors(store.names, patterns, str(semantic))
    order = semantic_order(store.names, chosen, str(semantic))
    table = without_left_out(table, [store])
    ids = list(table.frame["image_id"])
    files = dict(zip(reversed(ids), reversed(table.paths()), strict=True))
    pixels = open_pixels({name: files[name] for name in dict.fromkeys(ids)}, size, ledger, workers)
    row_of = dict(zip(dict.fromkeys(ids), pixels.rows, strict=True))
    inputs = PaperInputs(
        image_ids=tuple(ids),
        pixels=Pixels(pixels.file, np.array([row_of[name] for name in ids])),
        semantic=store.rows(store.row_ids(table))[:, order].astype(np.float32),
        prompts=tuple(store.names[p] for p in order),
        stores={"semantic": describe_store(store, chosen), "visual": describe_pixels(size)},
    )
    return table, inputs


def semantic_order(names: Sequence[str], chosen: Sequence[int], where: str) -> list[int]:
    """Which vectors of a store are the network's two: the paper's by name, else as they stand.

    Args:
        names: of all its vectors.
        chosen: the places of those that `fit.vectors` names.
        where: begins the message of an error.

    Raises:
        AgiqaError: there are not two.
    """
    taken = [names[index] for index in chosen]
    if len(taken) != len(SEMANTIC):
        raise AgiqaError(
            f"{where}: expected two vectors an image ({', '.join(SEMANTIC)}), found "
            f"{len(taken)} ({', '.join(taken)}): use the prompt set ma_agiqa, name two in "
            "fit.vectors, or take fit.preset=light."
        )
    return [names.index(name) for name in SEMANTIC] if set(taken) == set(SEMANTIC) else [*chosen]


def network_inputs(
    pixels: Rows,
    semantic: np.ndarray,
    rows: np.ndarray,
    device: torch.device,
    draws: np.ndarray | None = None,
    flip: str = "",
) -> tuple[Tensor, Tensor]:
    """What the network takes of the images `rows` `(n,)`, flipped and turned as drawn."""
    images = torch.from_numpy(pixels[rows]).to(device)
    if draws is not None:
        images = augment(images, draws, flip)
    return as_input(images), torch.from_numpy(semantic[rows]).to(device)


def draw(count: int, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Draw what happens to images: quarter turns, 0 to 3, then whether to flip: `(count, 2)`."""
    turned = rng.random(count) < recipe.augment
    turns = rng.choice([1, 2, 3], size=count, p=TURNS)
    flipped = rng.random(count) < recipe.augment
    return np.stack(
        [np.where(turned & recipe.rotate, turns, 0), flipped & (recipe.flip in FLIPS)], axis=1
    )


def augment(pixels: Tensor, draws: np.ndarray, flip: str) -> Tensor:
    """Pixels `(B, S, S, 3)` turned and flipped as drawn `(B, 2)`."""
    images = []
    for image, (turns, flipped) in zip(pixels, draws, strict=True):
        turned = torch.rot90(image, int(turns), dims=(0, 1)) if turns else image
        images.append(turned.flip(FLIPS[flip]) if flipped else turned)
    return torch.stack(images)


def as_input(pixels: Tensor) -> Tensor:
    """Pixels `(B, H, W, 3)` of 0 to 255 to what the regressor takes, `(B, 3, H, W)` in [−1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
