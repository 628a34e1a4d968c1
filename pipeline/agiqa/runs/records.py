"""What the JSON files of a run hold: provenance.json, by `fit`, and metrics.json, by `evaluate`.

Both may come from anybody: names in them become parts of paths and lines on a terminal, and numbers
become sizes. They are judged once, where they are read; behind that every field is what it should
be.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from agiqa.core.errors import AgiqaError, one_line, printable
from agiqa.core.run_folders import PROVENANCE
from agiqa.core.shapes import require
from agiqa.core.trees import read_json
from agiqa.data.metric_names import FIGURES

LAYOUT = 3
METRICS = "metrics.json"
AGAIN = "run `agiqa fit` again, or fetch it again where it was published"
MOST_NAME = 200  # bytes of a name, which becomes a file's
SCORES_WITH = ("seeds", "experts", "stores", "mos", "images")  # what scoring needs to know


class MosRange(TypedDict):
    """The range of a MOS."""

    low: float
    high: float


class Leak(TypedDict):
    """A split's sides, and what they share."""

    train: int
    val: int
    test: int
    same_group: int
    same_file: int
    same_prompt: NotRequired[int]


class Made(TypedDict):
    """What the vectors of one kind were made by."""

    extractor: str
    names: list[str]
    fingerprints: list[dict[str, Any]]


class About(TypedDict):
    """One data set that a run was trained on."""

    dataset: str
    target: str
    protocol: str
    synthetic: bool
    targets: NotRequired[list[str]]
    seeds: NotRequired[list[int]]
    mos: NotRequired[MosRange]
    images: NotRequired[int]
    licence: NotRequired[str]
    source: NotRequired[str]
    leaks: NotRequired[list[Leak]]
    splits_sha256: NotRequired[str]


class Provenance(About):
    """provenance.json: the first data set's description, and all that holds for the run."""

    layout: int
    preset: NotRequired[str]
    trained_on: NotRequired[list[str]]
    others: NotRequired[list[About]]
    experts: NotRequired[list[str]]
    stores: NotRequired[dict[str, Made]]
    network: NotRequired[dict[str, Any]]
    imported: NotRequired[dict[str, str]]
    versions: NotRequired[dict[str, str]]
    git_revision: NotRequired[str | None]
    fit_seconds: NotRequired[float]
    published: NotRequired[str]  # under which name
    sha256: NotRequired[dict[str, str]]  # of the files of a published run, by name


class Summary(TypedDict, total=False):
    """One figure over the splits; null where it is not defined."""

    median: float | None
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    why: str  # it is not defined


SUMMARY = ("median", "mean", "sd", "low", "high")


class Intervals(TypedDict, total=False):
    """What the intervals hold for."""

    level: float | None
    drawn: str
    of: str
    units: int
    too_few: str


class Ceiling(TypedDict, total=False):
    """What the raters' noise leaves to be reached."""

    assumed: bool
    raters: float | None
    images: int
    reliability: float | None
    srcc: float | None
    krcc: float | None
    plcc: float | None
    rmse: float | None
    mae: float | None


class Outside(TypedDict):
    """Scores beyond the scale of the training."""

    low: float
    high: float
    scores: int
    below: int
    above: int


class Generator(TypedDict):
    """Figures within one generator's test images."""

    images: int
    splits: NotRequired[int]
    mean_mos: float | None
    mean_score: float | None
    srcc: Summary
    plcc: Summary
    most_a_split: NotRequired[int | None]
    least_for_correlation: NotRequired[int | None]


class GateWeight(TypedDict):
    """An expert's share over the test images."""

    mean: float | None
    sd: float | None


class Gain(TypedDict):
    """What the gate adds to the SRCC of one constant mixture, over the splits."""

    mean: float | None
    low: float | None
    high: float | None
    p: float | None


class Gating(TypedDict):
    """What validation made of the gate."""

    epochs: list[int]  # by split, 0: constant
    deviation: float | None
    gain: Gain


class Covered(TypedDict):
    """How many of some images' MOS the prediction intervals hold."""

    images: int
    covered: float | None
    low: NotRequired[float | None]  # of their MOS
    high: NotRequired[float | None]


class Coverage(Covered):
    """The same of all tested images, and of parts of them."""

    level: float | None
    width: float | None
    splits: list[float | None]
    generators: dict[str, Covered]
    ranges: list[Covered]


class Metrics(TypedDict):
    """The fields of metrics.json, as `evaluate` writes it."""

    models: dict[str, dict[str, Summary]]
    dataset: NotRequired[str]
    target: NotRequired[str]
    protocol: NotRequired[str]
    synthetic: NotRequired[bool]
    preset: NotRequired[str]
    trained_on: NotRequired[list[str]]
    mos: NotRequired[dict[str, float | None]]
    splits: NotRequired[int]
    splits_sha256: NotRequired[str]
    leaks: NotRequired[list[Leak]]
    intervals: NotRequired[Intervals | None]
    generators: NotRequired[dict[str, Generator]]
    gate: NotRequired[dict[str, GateWeight]]
    gating: NotRequired[Gating]
    coverage: NotRequired[Coverage]
    per_split: NotRequired[dict[str, list[dict[str, Any]]]]
    ceiling: NotRequired[Ceiling | None]
    outside_scale: NotRequired[Outside | None]


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
        require(provenance, Provenance, partial=partial)
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
        require(metrics, Metrics)
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
                require(figures, dict[str, float | None], key)
                require(row, Row, key)
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


class Row(TypedDict):
    """One split's figures; each further one is a number or null."""

    seed: int
    srcc: float | None
    images: NotRequired[int]


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
