"""predictions.csv of a run that is evaluated: what its models said of the images of its test sides.

One row for each model, split and tested image. It may come from anybody: paths in it are joined
with folders, and numbers are averaged, so all of it is judged here, where it is read.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, printable
from agiqa.data.datasets.labels import require_columns
from agiqa.data.datasets.table import inner_path
from agiqa.data.datasets.text_table import read_text_csv

PREDICTIONS = "predictions.csv"
GATE = "gate_"  # prefix of the columns that hold the gate's weights
NEEDED = ("model", "seed", "path", "mos", "score")
LATER = ("group", "generator", "image_id")  # which runs of earlier versions lack
EMPTY = ("", "nan")  # how a number that is not defined stands in a CSV


def read_predictions(folder: Path, needed: Sequence[str] = ()) -> pd.DataFrame:
    """Read and check the predictions of a run, or of a folder of results in it.

    Args:
        folder: that holds the file.
        needed: columns beside model, seed, path, mos and score that it must have.

    Returns:
        Text in model, path, group, generator and image_id (empty where the file lacks them), whole
        numbers in seed, and floats in mos, score and each `gate_*`, NaN where one is not defined.

    Raises:
        AgiqaError: there is none, or it is damaged; a path leaves the images' folder.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        raise AgiqaError(
            f"{printable(folder)}: expected {PREDICTIONS}, found none: run `agiqa evaluate` first"
        )
    frame = read_text_csv(path)
    require_columns(frame, (*NEEDED, *needed), path)
    try:
        for column in (str(name) for name in frame):
            if column in ("mos", "score") or column.startswith(GATE):
                frame[column] = _numbers(frame[column])
        frame["seed"] = _whole(frame["seed"])
        if "image_id" in frame and not frame["image_id"].str.fullmatch("[0-9a-f]{64}").all():
            raise ValueError("no sha256 in image_id")
        if frame.duplicated(["model", "seed", "path"]).any():
            raise ValueError("an image stands twice in a split of one model")
    except ValueError as error:
        raise AgiqaError(
            f"{printable(path)}: damaged: {error}: run `agiqa evaluate` again"
        ) from error
    for name in frame["path"].unique():
        inner_path(name, printable(path))
    return frame.assign(**{name: "" for name in LATER if name not in frame})


def _numbers(told: "pd.Series[str]") -> "pd.Series[float]":
    """Finite floats, NaN for what is empty."""
    found = pd.to_numeric(told, errors="coerce").astype(float)
    odd = ~np.isfinite(found) & ~told.str.lower().isin(EMPTY)
    if odd.any():
        wrong = printable(told[odd].iloc[0])[:40]
        raise ValueError(f"expected numbers in column {told.name}, found '{wrong}'")
    return found


def _whole(told: "pd.Series[str]") -> "pd.Series[int]":
    """Whole numbers, such as seeds."""
    odd = ~told.str.fullmatch(r"\d{1,18}")
    if odd.any():
        wrong = printable(told[odd].iloc[0])[:40]
        raise ValueError(f"expected whole numbers in column {told.name}, found '{wrong}'")
    return told.astype(np.int64)
