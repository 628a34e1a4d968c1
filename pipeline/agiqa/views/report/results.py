"""What the report reads: the files that `fit` and `evaluate` left in a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from agiqa.core.errors import AgiqaError, printable
from agiqa.data.datasets.text_table import read_text_csv
from agiqa.runs.files import CURVES, PARAMS, provenance_of, run_folder
from agiqa.runs.records import (
    GATE,
    METRICS,
    PREDICTIONS,
    finite_numbers,
    read_metrics,
    read_predictions,
    result_files,
)

MODEL = "moe"  # the model that the page is about; the others stand beside it in the tables
NEEDED = ("dataset", "synthetic", "target", "protocol", "splits", "models", "per_split")
# Folders inside a run that hold results of their own, and what these are.
FURTHER = {
    "targets": "The same images and splits, another score.",
    "datasets": "Another data set that the run was trained on, by its own splits.",
    "cross": "A data set that the run was not trained on.",
}


@dataclass(frozen=True)
class Further:
    """Results beside the run's own: on another target, or on another data set."""

    folder: str  # inside the run, such as targets/align
    meaning: str  # one sentence
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """One evaluated run, as its report reads it."""

    folder: Path
    provenance: dict[str, Any]
    metrics: dict[str, Any]
    predictions: pd.DataFrame  # of MODEL: seed, path, generator, group, mos, score, gate_<expert>…
    curves: pd.DataFrame  # model, seed, epoch, val_srcc
    settings: str  # params.yaml as it stands
    further: tuple[Further, ...] = ()

    @property
    def experts(self) -> list[str]:
        """The gate's experts, in its order."""
        return [str(c).removeprefix(GATE) for c in self.predictions if str(c).startswith(GATE)]

    @property
    def truth(self) -> str:
        """What the scores were learned from, in the words of the page."""
        return "true score" if self.metrics["synthetic"] else "MOS"

    @property
    def name(self) -> str:
        """The run, as the user named it."""
        return printable(self.folder)


def read_results(run: Path) -> Results:
    """Read the run, or a folder of results in it, such as RUN/targets/NAME.

    Raises:
        AgiqaError: not a run, not evaluated yet, or a damaged file.
    """
    provenance, fitted = provenance_of(run), run_folder(run)
    if not (fitted / CURVES).is_file():
        raise AgiqaError(
            f"{printable(fitted)}: expected {CURVES}, found none: run `agiqa fit` again"
        )
    metrics = _metrics(run, NEEDED)
    return Results(
        folder=run,
        provenance=provenance,
        metrics=metrics,
        predictions=_predictions(run, metrics),
        curves=_curves(fitted / CURVES),
        settings=(fitted / PARAMS).read_text("utf-8", errors="replace"),
        further=tuple(
            Further(
                printable(path.parent.relative_to(run)),
                FURTHER[path.relative_to(run).parts[0]],
                _metrics(path.parent, ("models",)),
            )
            for path in result_files(run)
            if path.parent != run
        ),
    )


def average_images(results: Results) -> pd.DataFrame:
    """One row for each image that was tested and has a score that is a number.

    Columns: path, generator, group, mos, score (mean over the splits that tested it), splits (their
    number), the gate's weights (likewise means), error (score − MOS).
    """
    gates = [GATE + expert for expert in results.experts]
    grouped = results.predictions.dropna(subset=["mos", "score"]).groupby("path", sort=True)
    images = grouped.agg(
        generator=("generator", "first"),
        group=("group", "first"),
        mos=("mos", "mean"),
        score=("score", "mean"),
        splits=("score", "size"),
        **{gate: (gate, "mean") for gate in gates},
    ).reset_index()
    return images.assign(error=images["score"] - images["mos"])


def _metrics(folder: Path, needed: Sequence[str]) -> dict[str, Any]:
    metrics = read_metrics(folder, needed)
    if MODEL not in metrics["models"]:
        raise AgiqaError(
            f"{printable(folder / METRICS)}: damaged (no figures of model {MODEL}): run "
            "`agiqa evaluate` again"
        )
    return metrics


def _predictions(folder: Path, metrics: dict[str, Any]) -> pd.DataFrame:
    frame = read_predictions(folder)
    frame = frame[frame["model"] == MODEL].reset_index(drop=True)
    path = printable(folder / PREDICTIONS)
    if frame.empty:
        raise AgiqaError(f"{path}: no rows of model {MODEL}: run `agiqa evaluate` again")
    count = sum(row.get("images", 0) for row in metrics["per_split"].get(MODEL, []))
    if count and count != len(frame):
        raise AgiqaError(
            f"{path}: damaged: expected {count:,} rows of model {MODEL}, as {METRICS} says, found "
            f"{len(frame):,}: run `agiqa evaluate` again"
        )
    return frame


def _curves(path: Path) -> pd.DataFrame:
    """Read the learning curves; AgiqaError for what is neither a number nor empty."""
    frame = read_text_csv(path, ("model", "epoch", "val_srcc"))
    try:
        return frame.assign(**{name: finite_numbers(frame[name]) for name in ("epoch", "val_srcc")})
    except ValueError as error:
        raise AgiqaError(
            f"{printable(path)}: damaged: {error}: run `agiqa evaluate` again"
        ) from error
