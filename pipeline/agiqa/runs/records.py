"""What the files of a run hold: provenance.json, by `fit`; figures and predictions, by `evaluate`.

metrics.json has the figures; predictions.csv a row for each model, split and tested image.

All may come from anybody: names in them become parts of paths and lines on a terminal, and numbers
become sizes or are averaged. They are judged once, where they are read; behind that every field is
what it should be.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, one_line, printable
from agiqa.core.run_folders import PROVENANCE
from agiqa.core.shapes import Shape, require
from agiqa.core.trees import read_json
from agiqa.data.datasets.table import inner_path
from agiqa.data.datasets.text_table import read_text_csv
from agiqa.data.metric_names import FIGURES
from agiqa.stage2.presets import MIXTURE

LAYOUT = 3
METRICS = "metrics.json"
AGAIN = "run `agiqa fit` again, or fetch it again where it was published"
MOST_NAME = 200  # bytes of a name, which becomes a file's
SCORES_WITH = ("seeds", "experts", "stores", "mos", "images")  # what scoring needs to know

PREDICTIONS = "predictions.csv"
GATE = "gate_"  # prefix of the columns that hold the gate's weights
LOW, HIGH = "low", "high"  # ends of the mixture's prediction intervals
NEEDED = ("model", "seed", "path", "image_id", "generator", "group", "mos", "score")
EMPTY = ("", "nan")  # how a number that is not defined stands in a CSV

# What the JSON files hold, as `shapes.require` reads it; a number is null where it is not defined.
NUMBER: Any = float | None
MOS_RANGE: Shape = {"low": float, "high": float}
SIDES = ("train", "val", "test", "same_group", "same_file", "same_prompt?")
LEAK: Shape = dict.fromkeys(SIDES, int)  # a split's sides, and what they share
STORE: Shape = {
    "extractor": str,
    "names": [str],
    "fingerprints": [{}],
}  # what made vectors of one kind
DATA: Shape = {  # one data set that a run was trained on
    **dict.fromkeys(("dataset", "target", "protocol"), str),
    "synthetic": bool,
    "targets?": [str],
    "seeds?": [int],
    "mos?": MOS_RANGE,
    "images?": int,
    **dict.fromkeys(("licence?", "source?"), str),
    "leaks?": [LEAK],
    "splits_sha256?": str,
}
PROVENANCE_FIELDS: Shape = {  # the first data set's description, and all that holds for the run
    **DATA,
    "layout": int,
    "preset?": str,
    "trained_on?": [str],
    "others?": [DATA],
    "experts?": [str],
    "stores?": {"*": STORE},
    "network?": {},
    "imported?": {"*": str},
    "versions?": {"*": str},
    "git_revision?": str | None,
    "fit_seconds?": float,
    "published?": str,  # under which name
    "sha256?": {"*": str},  # of the files of a published run, by name
}
SUMMARY = ("median", "mean", "sd", "low", "high")  # of one figure over the splits
FIGURE: Shape = {**dict.fromkeys((f"{name}?" for name in SUMMARY), NUMBER), "why?": str}
GENERATOR: Shape = {  # figures within one generator's test images
    "images": int,
    "splits?": int,
    **dict.fromkeys(("mean_mos", "mean_score"), NUMBER),
    **dict.fromkeys(("srcc", "plcc"), FIGURE),
    **dict.fromkeys(("most_a_split?", "least_for_correlation?"), int | None),
}
# How many of some images' MOS the prediction intervals hold, and the ends of their MOS.
COVERED: Shape = {"images": int, **dict.fromkeys(("covered", "low?", "high?"), NUMBER)}
METRICS_FIELDS: Shape = {
    "models": {"*": {"*": FIGURE}},
    **dict.fromkeys(("dataset?", "target?", "protocol?"), str),
    "synthetic?": bool,
    "preset?": str,
    "trained_on?": [str],
    "mos?": {"*": NUMBER},
    "splits?": int,
    "splits_sha256?": str,
    "leaks?": [LEAK],
    "intervals?": (  # what they hold for
        {"level?": NUMBER, "drawn?": str, "of?": str, "units?": int, "too_few?": str},
        None,
    ),
    "generators?": {"*": GENERATOR},
    "gate?": {"*": {"mean": NUMBER, "sd": NUMBER}},  # an expert's share over the test images
    "gating?": {  # what validation made of the gate
        "epochs": [int],  # by split, 0: constant
        "deviation": NUMBER,
        # What the gate adds to the SRCC of one constant mixture, over the splits.
        "gain": dict.fromkeys(("mean", "low", "high", "p"), NUMBER),
    },
    "coverage?": {  # of all tested images, and of parts of them
        **COVERED,
        **dict.fromkeys(("level", "width"), NUMBER),
        "splits": [NUMBER],
        "generators": {"*": COVERED},
        "ranges": [COVERED],
    },
    "per_split?": {"*": [{}]},
    "ceiling?": (  # what the raters' noise leaves to be reached
        {
            "assumed?": bool,
            "images?": int,
            **dict.fromkeys(("raters?", "reliability?"), NUMBER),
            **dict.fromkeys(
                (f"{name}?" for name in ("srcc", "krcc", "plcc", "rmse", "mae")), NUMBER
            ),
        },
        None,
    ),
    "outside_scale?": (  # scores beyond the scale of the training
        {**MOS_RANGE, **dict.fromkeys(("scores", "below", "above"), int)},
        None,
    ),
}
# One split's figures; each further one is a number or null.
ROW: Shape = {"seed": int, "srcc": NUMBER, "images?": int}


def read_provenance(folder: Path, partial: bool = False) -> dict[str, Any]:
    """provenance.json of the run in `folder`.

    Args:
        folder: the run's.
        partial: whether fields may be missing; none may be otherwise than it should.

    Raises:
        AgiqaError: absent, damaged, of a newer layout, or a field is not what it should be.
    """
    path = folder / PROVENANCE
    provenance = _read(path, AGAIN)
    again = remedy(folder, provenance)
    layout = provenance.get("layout", LAYOUT if partial else None)
    if layout != LAYOUT:
        raise AgiqaError(
            f"{printable(folder)}: run layout {printable(layout)[:20]}, this agiqa reads {LAYOUT}; "
            f"update agiqa or {again}."
        )
    try:
        require(provenance, PROVENANCE_FIELDS, partial=partial)
        for about in [provenance, *provenance.get("others", [])]:
            _check_about(about)
        _require_names(provenance.get("trained_on", []), "trained_on")
        _require_names([provenance.get("published", "-")], "published")
        if not partial:
            _check_sizes(provenance)
    except ValueError as error:
        raise AgiqaError(f"{printable(path)}: damaged run ({error}); {again}.") from error
    return provenance


def remedy(folder: Path, provenance: Mapping[str, Any]) -> str:
    """Say what to do about a damaged run: one that is published is no other's to fit."""
    if "published" not in provenance:
        return "run `agiqa fit` again"
    whole = folder.parents[1] if folder.parent.name == "snapshots" else folder  # the hub's cache
    return f"remove {printable(whole)} and fetch it again"


def result_files(run: Path, others: bool = True) -> list[Path]:
    """Find metrics.json of a run and of all results inside it, its own first.

    These are its further targets and data sets, and, with `others`, data sets that it was not
    fitted on.
    """
    inside = ("", "datasets/*/", *["cross/*/"] * others)
    patterns = [f"{data}{target}{METRICS}" for data in inside for target in ("", "targets/*/")]
    return [path for pattern in patterns for path in sorted(run.glob(pattern))]


def read_metrics(folder: Path, needed: Sequence[str] = ("models",)) -> dict[str, Any]:
    """The figures of a run that is evaluated, or of a folder of results in it.

    Args:
        folder: that holds metrics.json.
        needed: keys that it must have.

    Raises:
        AgiqaError: there are none, or they are damaged.
    """
    path = folder / METRICS
    if not path.is_file():
        raise AgiqaError(
            f"{printable(folder)}: expected {METRICS}, found none: run `agiqa evaluate` first"
        )
    metrics = _read(path, again := "run `agiqa evaluate` again")
    try:
        if missing := sorted(set(needed) - set(metrics)):
            raise ValueError(f"no {', '.join(missing)}")
        require(metrics, METRICS_FIELDS)
        _require_names(
            [metrics.get(key, "-") for key in ("dataset", "target", "protocol")], "names"
        )
        _require_names(metrics.get("trained_on", []), "trained_on")
        if metrics.get("splits", 1) < 1:
            raise ValueError(f"splits is {metrics['splits']}")
        for model, rows in metrics.get("per_split", {}).items():
            for number, row in enumerate(rows):
                key = f"per_split.{printable(model)[:40]}[{number}]"
                figures = {n: value for n, value in row.items() if n not in ("intervals", "why")}
                require(figures, {"*": NUMBER}, key)
                require(row, ROW, key)
    except ValueError as error:
        raise AgiqaError(f"{printable(path)}: damaged ({error}): {again}") from error
    for figures in metrics["models"].values():  # what is not there is not defined
        for name in FIGURES:
            figures.setdefault(name, {"why": f"not measured; {again}"})
    for summaries in [*metrics["models"].values(), *metrics.get("generators", {}).values()]:
        for summary in summaries.values():
            if isinstance(summary, dict):
                summary |= {key: summary.get(key) for key in SUMMARY}
    return metrics


def _read(path: Path, again: str) -> dict[str, Any]:
    try:
        tree = read_json(path)
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{printable(path)}: damaged ({one_line(error)}): {again}") from error
    if not isinstance(tree, dict):
        raise AgiqaError(f"{printable(path)}: damaged (expected an object): {again}")
    return tree


def _check_about(about: Mapping[str, Any]) -> None:
    names = [about[key] for key in ("dataset", "target", "protocol") if key in about]
    _require_names(names, "dataset, target and protocol")
    for key in ("targets", "seeds"):
        values = about.get(key, ["-"])
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{key}: expected different ones, at least one, found {values[:5]}")
    _require_names(about.get("targets", []), "targets")


def _check_sizes(provenance: Mapping[str, Any]) -> None:
    """Lists that belong together are as long as each other."""
    experts = provenance.get("experts", ["-"])
    if not experts or len(set(experts)) < len(experts):
        raise ValueError(f"experts: expected different ones, at least one, found {experts[:5]}")
    for name in experts:
        if printable(name) != name:
            raise ValueError(f"experts: {printable(name)[:60]!r} is no plain name")
    for kind, made in provenance.get("stores", {}).items():
        if not made["names"] or len(made["names"]) != len(made["fingerprints"]):
            raise ValueError(
                f"stores.{printable(kind)[:40]}: {len(made['names'])} names and "
                f"{len(made['fingerprints'])} fingerprints"
            )
    trained, others = provenance.get("trained_on"), provenance.get("others", [])
    if trained is not None and len(trained) != 1 + len(others):
        raise ValueError(f"trained_on: expected {1 + len(others)} data sets, found {len(trained)}")


def _require_names(names: Sequence[str], key: str) -> None:
    """Refuse what cannot be the name of a folder: these become parts of paths."""
    for name in names:
        plain = printable(name) == name and not set("/\\") & set(name)
        if not plain or name.strip(" .") == "" or len(name.encode()) > MOST_NAME:
            raise ValueError(
                f"{key}: expected names that a folder can have, found {printable(name)[:60]!r}"
            )


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
