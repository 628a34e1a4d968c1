"""The rated images of a run's data set: their sides, the run's scores, and which look alike.

Alike: the cosine of the visual features, each standardised over the data set. The features come
straight from the pack, block by block, so 20,000 images need no second copy in memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.groups import prompt_key
from agiqa.data.datasets.table import ImagesTable, read_table
from agiqa.data.splits.files import read_protocol, side_rows, split_digest
from agiqa.runs.files import Run
from agiqa.runs.records import mean_predictions
from agiqa.stage2.features import Sides
from agiqa.store import FeatureStore

BLOCK = 512  # images at a time


@dataclass(frozen=True)
class Neighbour:
    """A rated image of the data set that looks alike."""

    path: str  # as in the images table
    mos: float
    score: float | None  # the run's mean over the splits that test it; None: not evaluated
    similarity: float  # cosine of the standardised visual features, -1 to 1
    generator: str
    same_prompt: bool  # made from the same text, so that it is alike for another reason too


@dataclass(frozen=True, eq=False)
class RatedImages:
    """The images table of a run's data set, with what the run made of it."""

    table: ImagesTable
    target: str
    sides: Sides
    scores: Mapping[str, float]  # by path: mean over the splits that test the image

    @classmethod
    def read(cls, run: Run, folder: Path) -> Self:
        """Read what lies in `cache/DATASET` and in the run.

        Raises:
            AgiqaError: no such table, target or splits, or other splits than those of the fit.
        """
        table, about = read_table(folder), run.provenance
        if about["target"] not in table.frame:
            raise AgiqaError(
                f"{folder}: no target '{about['target']}', which {run.folder} was fitted on."
            )
        splits = read_protocol(folder, table, str(about["protocol"]))
        made = about.get("splits_sha256")
        if made and made != split_digest(splits):
            raise AgiqaError(
                f"{folder}: other {about['protocol']} splits than those that {run.folder} was "
                "fitted on: run `agiqa fit` again."
            )
        means = mean_predictions(run.folder)
        scores = {} if means is None else {str(p): float(s) for p, s in means["score"].items()}
        return cls(table, str(about["target"]), side_rows(splits, table), scores)

    @cached_property
    def mos(self) -> np.ndarray:
        """`(N,)`; NaN where the data set keeps it to itself."""
        return self.table.frame[self.target].to_numpy(dtype=float)

    @cached_property
    def ids(self) -> list[str]:
        """Image ids, in the table's order."""
        return list(self.table.frame["image_id"].astype(str))

    @cached_property
    def prompts(self) -> dict[str, str]:
        """The text that each image was made from, by image id; "" where nobody knows."""
        return dict(zip(self.ids, self.table.frame["prompt"].astype(str), strict=True))

    @cached_property
    def prompt_of_path(self) -> dict[str, str]:
        """The same by path: one image may stand in the table with several."""
        return dict(zip(self.table.frame["path"], self.table.frame["prompt"], strict=True))

    def rows(self, side: str) -> np.ndarray:
        """Row numbers of rated images that are on that side of some split, each once."""
        parts = [sides[side] for sides in self.sides.values() if side in sides]
        rows = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.intp)
        return np.asarray(rows[np.isfinite(self.mos[rows])], dtype=np.intp)

    def groups(self, rows: np.ndarray) -> list[str]:
        """What of `rows` is drawn together: the prompt group, or the image where it has none."""
        frame = self.table.frame.iloc[rows]
        return list(frame["group"].where(frame["group"] != "", frame["path"]))


class Alikeness:
    """Which rated images look like an image, by a pack of visual features of N images."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def neighbours(
        self,
        rated: RatedImages,
        visual: np.ndarray,
        ids: Sequence[str],
        prompts: Sequence[str],
        count: int,
    ) -> list[list[Neighbour]]:
        """Find the `count` rated images most like each of B images, never the image itself.

        By their features `(B, F)`; prompts are "" where nobody knows.
        """
        first_rows = {name: row for row, name in reversed(list(enumerate(rated.ids)))}
        rows = np.array([first_rows.get(name, -1) for name in self.store.image_ids])
        allowed = (rows >= 0) & np.isfinite(rated.mos[rows])
        return [
            [
                _neighbour(rated, int(rows[row]), float(cosines[row]), prompt)
                for row in nearest(cosines, self.store.image_ids, allowed, own, count)
            ]
            for cosines, own, prompt in zip(self.cosines(visual), ids, prompts, strict=True)
        ]

    def cosines(self, visual: np.ndarray) -> np.ndarray:
        """Of vectors `(B, F)` to the pack's images `(B, N)`."""
        mean, scale, norms = self._moments
        off = (visual - mean) / scale
        off /= np.linalg.norm(off, axis=1, keepdims=True) + 1e-12
        weighted = off / scale
        dots = np.concatenate([weighted @ block.T for block in self._blocks()], axis=1)
        return np.asarray((dots - (weighted @ mean)[:, None]) / norms)

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean and deviation `(F,)`, and the norms `(N,)` of the standardised vectors."""
        count = len(self.store.image_ids)
        mean = np.sum([block.sum(axis=0, dtype=np.float64) for block in self._blocks()], axis=0)
        mean = (mean / count).astype(np.float32)
        squares = [np.square(block - mean).sum(axis=0) for block in self._blocks()]
        scale = np.sqrt(np.sum(squares, axis=0) / count) + 1e-6
        norms = [np.linalg.norm((block - mean) / scale, axis=1) for block in self._blocks()]
        return mean, scale, np.concatenate(norms) + 1e-12

    def _blocks(self) -> Iterator[np.ndarray]:
        vectors = self.store.vectors
        for start in range(0, len(vectors), BLOCK):
            rows = vectors[start : start + BLOCK].astype(np.float32)
            yield rows.reshape(len(rows), -1)


def nearest(
    cosines: np.ndarray, ids: Sequence[str], allowed: np.ndarray, own: str, count: int
) -> list[int]:
    """Places of the `count` most alike of N images that are allowed, most alike first.

    `own` is the id of the image itself, which is left out.
    """
    itself = np.array([name == own for name in ids])
    ranked = np.argsort(np.where(allowed & ~itself, -cosines, np.inf), kind="stable")
    return [int(row) for row in ranked[:count] if allowed[row] and not itself[row]]


def _neighbour(rated: RatedImages, row: int, cosine: float, prompt: str) -> Neighbour:
    about = rated.table.frame.iloc[row]
    return Neighbour(
        path=str(about["path"]),
        mos=float(rated.mos[row]),
        score=rated.scores.get(str(about["path"])),
        similarity=cosine,
        generator=str(about["generator"]),
        same_prompt=prompt_key(prompt) == prompt_key(str(about["prompt"])) != "",
    )
