"""What a run's data set is to explanations: rated images, their sides, and the run's scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable, read_table
from agiqa.data.splits import read_protocol, side_rows, split_digest
from agiqa.runs.files import Run
from agiqa.runs.predictions import PREDICTIONS, read_predictions
from agiqa.stage2.predictors import MIXTURE

Sides = Mapping[int, Mapping[str, np.ndarray]]  # by seed: row numbers of train, val and test


@dataclass(frozen=True, eq=False)
class Rated:
    """The images table of a run's data set, with what the run made of it."""

    table: ImagesTable
    target: str
    sides: Sides
    scores: Mapping[str, float]  # by path: mean over the splits that test the image

    @cached_property
    def mos(self) -> np.ndarray:
        """`(N,)`; NaN where the data set keeps it to itself."""
        return self.table.frame[self.target].to_numpy(dtype=float)

    @cached_property
    def ids(self) -> list[str]:
        """Image ids, in the table's order."""
        return [str(each) for each in self.table.frame["image_id"]]

    @cached_property
    def prompts(self) -> dict[str, str]:
        """The text that each image was made from, by image id; "" where nobody knows."""
        return dict(zip(self.ids, self.table.frame["prompt"].astype(str), strict=True))

    def rows(self, side: str) -> np.ndarray:
        """Row numbers of rated images that are on that side of some split, each once."""
        parts = [sides[side] for sides in self.sides.values() if side in sides]
        rows = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.intp)
        return np.asarray(rows[np.isfinite(self.mos[rows])], dtype=np.intp)

    def groups(self, rows: np.ndarray) -> list[str]:
        """What of `rows` is drawn together: the prompt group, or the image where it has none."""
        frame = self.table.frame.iloc[rows]
        return list(frame["group"].where(frame["group"] != "", frame["path"]))


def read_rated(run: Run, folder: Path) -> Rated:
    """Read what lies in `cache/DATASET` and in the run.

    Raises:
        AgiqaError: no such table, target or splits, or other splits than those of the fit.
    """
    table, target = read_table(folder), str(run.provenance["target"])
    if target not in table.frame:
        raise AgiqaError(f"{folder}: no target '{target}', which {run.folder} was fitted on.")
    splits = read_protocol(folder, table, str(run.provenance["protocol"]))
    made = run.provenance.get("splits_sha256")
    if made and made != split_digest(splits):
        raise AgiqaError(
            f"{folder}: other {run.provenance['protocol']} splits than those that {run.folder} "
            "was fitted on: run `agiqa fit` again."
        )
    return Rated(table, target, side_rows(splits, table), tested_scores(run.folder))


def tested_scores(run: Path) -> dict[str, float]:
    """The mean test-side score of each image by path; empty where the run is not evaluated."""
    return {} if (frame := tested(run)) is None else dict(frame["score"].items())  # type: ignore[arg-type]


def tested(run: Path) -> pd.DataFrame | None:
    """`mos`, `score` and `image_id` by path, of the mixture, averaged over the splits.

    None where the run is not evaluated.

    Raises:
        AgiqaError: the file is damaged, or a path leaves the images' folder.
    """
    if not (run / PREDICTIONS).is_file():
        return None
    rows = read_predictions(run, ("image_id",))
    rows = rows[rows["model"] == MIXTURE]
    return rows.groupby("path", sort=False).agg(
        image_id=("image_id", "first"), mos=("mos", "first"), score=("score", "mean")
    )
