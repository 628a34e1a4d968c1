"""predictions.csv of a run that is evaluated: the scores that its models give to its test images.

One row for each model, split and tested image. It may come from anybody: paths in it are joined
with folders, and numbers are averaged, so all of it is judged here, where it is read.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, printable
from agiqa.data.datasets.table import inner_path
from agiqa.data.datasets.text_table import read_text_csv
from agiqa.stage2.presets import MIXTURE

PREDICTIONS = "predictions.csv"
GATE = "gate_"  # prefix of the columns that hold the gate's weights
LOW, HIGH = "low", "high"  # ends of the mixture's prediction intervals
NEEDED = ("model", "seed", "path", "image_id", "generator", "group", "mos", "score")
EMPTY = ("", "nan")  # how a number that is not defined stands in a CSV


def read_predictions(folder: Path) -> pd.DataFrame:
    """Read and check the predictions of a run, or of a folder of results in it.

    Returns:
        Text in model, path, image_id, generator and group, whole numbers in seed, and floats in
        mos, score and each `gate_*`, NaN where one is not defined.

    Raises:
        AgiqaError: there is none, or it is damaged; a path leaves the images' folder.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        raise AgiqaError(
            f"{printable(folder)}: expected {PREDICTIONS}, found none: run `agiqa evaluate` first"
        )
    frame = read_text_csv(path, NEEDED)
    try:
        for column in (str(name) for name in frame):
            if column in ("mos", "score", LOW, HIGH) or column.startswith(GATE):
                frame[column] = finite_numbers(frame[column])
        seeds = frame["seed"]
        _refuse(seeds, ~seeds.str.fullmatch(r"\d{1,18}"), "whole numbers")
        frame["seed"] = seeds.astype(np.int64)
        if not frame["image_id"].str.fullmatch("[0-9a-f]{64}").all():
            raise ValueError("no sha256 in image_id")
        if frame.duplicated(["model", "seed", "path"]).any():
            raise ValueError("an image stands twice in a split of one model")
    except ValueError as error:
        raise AgiqaError(
            f"{printable(path)}: damaged: {error}: run `agiqa evaluate` again"
        ) from error
    for name in frame["path"].unique():
        inner_path(name, printable(path))
    return frame


def mean_predictions(folder: Path, by: str = "path") -> pd.DataFrame | None:
    """Read what the mixture says of each tested image, on average over the splits that test it.

    Args:
        folder: of a run, or of results in it.
        by: what tells images apart, their path or their image_id.

    Returns:
        `mos`, `score`, and the other of path and image_id; None where nothing is evaluated.

    Raises:
        AgiqaError: the file is damaged, or a path leaves the images' folder.
    """
    if not (folder / PREDICTIONS).is_file():
        return None
    rows = read_predictions(folder)
    first = {name: (name, "first") for name in ("path", "image_id", "mos") if name != by}
    images = rows[rows["model"] == MIXTURE].groupby(by, sort=False)
    return images.agg(**first, score=("score", "mean"))


def finite_numbers(text: "pd.Series[str]") -> "pd.Series[float]":
    """Read finite floats, NaN for what is empty; ValueError names what is neither."""
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    _refuse(text, ~np.isfinite(numbers) & ~text.str.lower().isin(EMPTY), "numbers")
    return numbers


def _refuse(text: "pd.Series[str]", odd: "pd.Series[bool] | np.ndarray", expected: str) -> None:
    if odd.any():
        wrong = printable(text[odd].iloc[0])[:40]
        raise ValueError(f"expected {expected} in column {text.name}, found '{wrong}'")
