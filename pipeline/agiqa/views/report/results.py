"""What the report reads: the files that `fit`, `evaluate` and `explain` left in a run folder.

`RUN/explanations/explanations.json` holds, by image path, an overlay (a PNG beside it), reasons
with numbers, and the nearest rated images; and for all images how well each reason holds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.trees import MOST_JSON, read_json
from agiqa.data.datasets.table import inner_path
from agiqa.data.datasets.text_table import read_text_csv
from agiqa.runs.files import CURVES, PARAMS, provenance_of, run_folder
from agiqa.runs.records import (
    GATE,
    METRICS,
    PREDICTIONS,
    finite_numbers,
    read_metrics,
    read_predictions,
)
from agiqa.views.kit.number import ends, number

MODEL = "moe"  # the model that the page is about; the others stand beside it in the tables
NEEDED = ("dataset", "synthetic", "target", "protocol", "splits", "models", "per_split")
EXPLANATIONS = "explanations/explanations.json"
MOST_BYTES = 4_000_000  # of reasons and neighbours in the page
REASON = ("aspect", "text", "answer", "percentile", "strength")
NEIGHBOUR = ("path", "mos", "score", "similarity")


@dataclass(frozen=True)
class Results:
    """One evaluated run, as its report reads it."""

    folder: Path
    provenance: dict[str, Any]
    metrics: dict[str, Any]
    predictions: pd.DataFrame  # of MODEL: seed, path, generator, group, mos, score, gate_<expert>…
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
    metrics = read_metrics(run, NEEDED)
    if MODEL not in metrics["models"]:
        raise AgiqaError(
            f"{printable(run / METRICS)}: damaged (no figures of model {MODEL}): run "
            "`agiqa evaluate` again"
        )
    return Results(
        folder=run,
        provenance=provenance,
        metrics=metrics,
        predictions=_predictions(run, metrics),
        curves=_curves(fitted / CURVES),
        settings=(fitted / PARAMS).read_text("utf-8", errors="replace"),
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


@dataclass(frozen=True)
class ExplainedImages:
    """What the page shows of them."""

    images: dict[int, dict[str, Any]] = field(default_factory=dict)  # by row of the page
    overlays: dict[int, Path] = field(default_factory=dict)
    validity: tuple[tuple[str, ...], ...] = ()  # aspects, rho with MOS, with residual, interval
    deletion: tuple[tuple[str, str], ...] = ()  # the deletion test's single numbers: what, figure
    left_out: int = 0  # images whose reasons the page has no room for
    available: bool = False


def read_explanations(
    run: Path, rows: Mapping[str, int], important: Sequence[int]
) -> ExplainedImages:
    """Read them for the page's rows by image path; of the `important` ones reasons are kept first.

    Empty where there are none.

    Raises:
        AgiqaError: damaged, or an overlay's path leaves the folder.
    """
    file = run / EXPLANATIONS
    if not file.is_file():
        return ExplainedImages()
    try:
        record = read_json(file, 4 * MOST_JSON)
        by_row = {rows[path]: image for path, image in record["images"].items() if path in rows}
        overlays = {
            row: file.parent / inner_path(str(image["overlay"]), f"{printable(file)}: overlay")
            for row, image in by_row.items()
            if image.get("overlay")
        }
        ordered = [row for row in important if row in by_row]
        images, room = {}, MOST_BYTES
        for row in ordered:
            image = _image(by_row[row], rows)
            room -= len(json.dumps(image, ensure_ascii=False).encode())
            if room < 0:
                break
            images[row] = image
        return ExplainedImages(
            images,
            overlays,
            tuple(map(_validity, record.get("reasons_validity") or ())),
            tuple(
                (str(name).replace("_", " "), number(v, 4) if isinstance(v, float) else str(v))
                for name, v in (record.get("deletion") or {}).items()
                if isinstance(v, int | float | str) and not isinstance(v, bool)
            ),
            len(ordered) - len(images),
            True,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgiqaError(
            f"{printable(file)}: damaged ({error!r}): run `agiqa explain` again"
        ) from error


def _image(explained: Mapping[str, Any], rows: Mapping[str, int]) -> dict[str, Any]:
    """What `images.js` reads: lists of REASON, and of a row and NEIGHBOUR."""
    return {
        "reasons": [
            [reason.get(key) for key in REASON] for reason in explained.get("reasons") or ()
        ],
        "neighbours": [
            [rows.get(neighbour["path"], -1), *(neighbour.get(key) for key in NEIGHBOUR)]
            for neighbour in explained.get("neighbours") or ()
        ],
    }


def _validity(aspect: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = aspect.get("low"), aspect.get("high")
    rhos = (number(aspect.get(key), 2, signed=True) for key in ("rho_mos", "rho_residual"))
    name = str(aspect["aspect"]).replace("_", " ")
    return (name, *rhos, "" if low is None else ends(low, high, 2))
