"""What the report reads: the files that `fit` and `evaluate` left in a run folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from agiqa.checkpoints import CURVES, METRICS, PARAMS, PREDICTIONS, load_provenance
from agiqa.datasets.labels import read_text_csv, require_columns
from agiqa.errors import AgiqaError
from agiqa.images import printable

MODEL = "moe"  # the model that the page is about; the others stand beside it in the tables
GATE = "gate_"  # prefix of the columns that hold the gate's weights


@dataclass(frozen=True)
class Results:
    """One evaluated run."""

    folder: Path
    provenance: dict[str, Any]
    metrics: dict[str, Any]
    predictions: pd.DataFrame  # of MODEL: seed, path, generator, mos, score, gate_<expert>…
    curves: pd.DataFrame  # model, seed, epoch, val_srcc
    settings: str  # params.yaml as it stands

    @property
    def experts(self) -> list[str]:
        """The gate's experts, in its order."""
        return [str(c).removeprefix(GATE) for c in self.predictions if str(c).startswith(GATE)]

    @property
    def truth(self) -> str:
        """What the scores were learned from, in the words of the page."""
        return "true score" if self.metrics["synthetic"] else "MOS"


def read_results(run: Path) -> Results:
    """Read the run folder.

    Raises:
        AgiqaError: not a run, not evaluated yet, or a damaged file.
    """
    provenance = load_provenance(run)
    for name in (METRICS, PREDICTIONS):
        if not (run / name).is_file():
            raise AgiqaError(
                f"{printable(run)}: expected {name}, found none: run `agiqa evaluate` first"
            )
    if not (run / CURVES).is_file():
        raise AgiqaError(f"{printable(run)}: expected {CURVES}, found none: run `agiqa fit` again")
    try:
        metrics: dict[str, Any] = json.loads((run / METRICS).read_text("utf-8"))
        needed = {"dataset", "synthetic", "target", "protocol", "splits", "models", "per_split"}
        if missing := sorted(needed - set(metrics)):
            raise ValueError(f"no {', '.join(missing)}")
        if MODEL not in metrics["models"]:
            raise ValueError(f"no figures of model {MODEL}")
    except (ValueError, TypeError) as error:
        raise AgiqaError(
            f"{printable(run / METRICS)}: damaged ({error}): run `agiqa evaluate` again"
        ) from error
    return Results(
        folder=run,
        provenance=provenance,
        metrics=metrics,
        predictions=_predictions(run / PREDICTIONS),
        curves=_numbers(run / CURVES, text=("model",), numbers=("epoch", "val_srcc")),
        settings=(run / PARAMS).read_text("utf-8", errors="replace"),
    )


def average_images(results: Results) -> pd.DataFrame:
    """One row for each image that was tested and has a score that is a number.

    Columns: path, generator, mos, score (mean over the splits that tested it), splits (their
    number), error (score − MOS).
    """
    grouped = results.predictions.dropna(subset=["mos", "score"]).groupby("path", sort=True)
    images = grouped.agg(
        generator=("generator", "first"),
        mos=("mos", "mean"),
        score=("score", "mean"),
        splits=("score", "size"),
    ).reset_index()
    return images.assign(error=images["score"] - images["mos"])


def _predictions(path: Path) -> pd.DataFrame:
    frame = read_text_csv(path)
    require_columns(frame, ("model", "seed", "path", "generator", "mos", "score"), path)
    frame = frame[frame["model"] == MODEL].reset_index(drop=True)
    if frame.empty:
        raise AgiqaError(f"{printable(path)}: no rows of model {MODEL}: run `agiqa evaluate` again")
    gates = [str(column) for column in frame if str(column).startswith(GATE)]
    for column in ("mos", "score", *gates):
        frame[column] = pd.to_numeric(frame[column], errors="coerce")
    return frame


def _numbers(path: Path, text: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    frame = read_text_csv(path)
    require_columns(frame, (*text, *numbers), path)
    for column in numbers:
        frame[column] = pd.to_numeric(frame[column], errors="coerce")
    return frame
