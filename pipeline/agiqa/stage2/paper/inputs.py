"""What the `paper` presets train on and are tested on: pixels, and two semantic vectors an image.

Beside `features`, which does the same for the `light` preset, with rows as there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage2.features import VISUAL, choose_vectors, describe_store, without_left_out
from agiqa.stage2.paper.network import SEMANTIC
from agiqa.stage2.paper.pixels import Pixels, describe_pixels, open_pixels
from agiqa.store import read_pack


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
