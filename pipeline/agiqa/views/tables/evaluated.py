"""Results of evaluated runs: what `evaluate` left in the folders that a user names.

A run's own data set stands in RUN/metrics.json, its further targets in RUN/targets/NAME/, further
data sets that it was trained on in RUN/datasets/NAME/, others that it was tested on in
RUN/cross/DATASET/. Nothing but these files and provenance.json is read, so that a table takes no
time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.core.model_names import MODELS, ZERO_SHOT, in_order
from agiqa.core.run_folders import PROVENANCE, provenance_files
from agiqa.runs.records import METRICS, read_metrics, read_provenance, result_files
from agiqa.stage2.presets import MIXTURE
from agiqa.views.tables.grids import CROSS, FIGURES, LEAKED, Result, Value

PROTOCOLS = {  # protocols in words, for those who did not read docs/protocols.md
    "grouped": "no prompt and no file on two sides",
    "random": "by image, so prompts stand on several sides",
    "paper": "MA-AGIQA's own single split, by image",
    "ipce": "IPCE's splits, as imported",
    "official": "the data set's own sets",
    CROSS: "trained on other data sets than tested on",
}
NETWORKS = {"paper": "MA-AGIQA's network", "paper-fixed": "MA-AGIQA's network, without its quirks"}


@dataclass(frozen=True)
class EvaluatedRuns:
    """Results of the runs in some folders."""

    results: list[Result]
    not_evaluated: list[Path]  # runs that were found and have no results
    damaged: list[AgiqaError]  # what is wrong with results below the folders, which are left out


def find_results(folders: Sequence[Path], models: Sequence[str] = (MIXTURE,)) -> EvaluatedRuns:
    """Results of every evaluated run in or below `folders`, by its models' names ("all": each).

    Raises:
        AgiqaError: no such folder, no run in it, a run named by itself that is not evaluated, none
            that is, damaged results of a run named by itself or of all, or a model of no run.
    """
    runs = dict.fromkeys(run for folder in folders for run in _runs(folder))
    by_run = {run: result_files(run) for run in runs}
    without = [run for run, files in by_run.items() if not files]
    for run in without:
        if run in folders:
            raise AgiqaError(
                f"{printable(run)}: expected {METRICS}, found none: run `agiqa evaluate "
                f"{printable(run)}` first"
            )
    if len(without) == len(by_run):
        names = some([printable(run) for run in without])
        raise AgiqaError(f"no run here is evaluated ({names}): run `agiqa evaluate` on them first")
    files: list[_MetricsFile] = []
    damaged: list[AgiqaError] = []
    for run, path in ((run, path) for run, paths in by_run.items() for path in paths):
        try:
            files.append(_read(run, path))
        except AgiqaError as error:
            if run in folders:
                raise
            damaged.append(error)
    if damaged and not files:
        raise damaged[0]
    named = in_order(dict.fromkeys(model for file in files for model in file.metrics["models"]))
    if unknown := [model for model in models if model not in (*named, "all")]:
        raise AgiqaError(f"no run has a model {some(unknown)}; there are: {', '.join(named)}, all")
    selected = [model for model in named if model in (*models, ZERO_SHOT) or "all" in models]
    results = [
        _result(file, model)
        for model in selected
        for file in files
        if model in file.metrics["models"]
    ]
    return EvaluatedRuns(results, without, damaged)


def _runs(folder: Path) -> list[Path]:
    """The run that a folder is, or those below it."""
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "none"
        raise AgiqaError(
            f"{printable(folder)}: expected a run or a folder of runs, found {kind}: make runs "
            "with `agiqa fit` and `agiqa evaluate`"
        )
    if (folder / PROVENANCE).is_file():
        return [folder]
    runs = sorted(
        path.parent
        for path in provenance_files(folder)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)  # half written
    )
    if not runs:
        inside = some(sorted(printable(path.name) for path in folder.iterdir()), 3) or "nothing"
        raise AgiqaError(
            f"{printable(folder)}: expected runs ({PROVENANCE}), found {inside}: make them with "
            "`agiqa fit` and `agiqa evaluate`"
        )
    return runs


@dataclass(frozen=True)
class _MetricsFile:
    """One metrics.json, and the run that it belongs to."""

    run: Path
    path: Path
    provenance: Mapping[str, Any]
    metrics: Mapping[str, Any]


def _read(run: Path, path: Path) -> _MetricsFile:
    provenance = read_provenance(run, partial=True)
    metrics = read_metrics(path.parent, ("dataset", "models", "protocol", "splits", "target"))
    if metrics["protocol"] == CROSS and not metrics.get("trained_on"):
        raise AgiqaError(
            f"{printable(path)}: damaged (no trained_on): run `agiqa cross` again on "
            f"{printable(run)}"
        )
    return _MetricsFile(run, path, provenance, metrics)


def _result(file: _MetricsFile, model: str) -> Result:
    metrics, provenance = file.metrics, file.provenance
    splits = metrics["splits"]
    protocol, leaks = metrics["protocol"], metrics.get("leaks", ())
    words = PROTOCOLS.get(protocol, "an imported split file")
    words += f"; {splits} split{'s' * (splits > 1)}"
    if model == ZERO_SHOT:
        sources = printable(provenance.get("model_trained_on", "")).rstrip(".")
        words += "; not trained on these ratings" + f"; its model saw {sources}" * bool(sources)
    return Result(
        method=f"agiqa: {_method(provenance, model)}",
        dataset=metrics["dataset"],
        target=metrics["target"],
        protocol=protocol,
        figures={
            name: _value(metrics["models"][model][name], splits)
            for name in FIGURES
            if name in metrics["models"][model]
        },
        ours=True,
        protocol_note=words,
        source=printable(file.path.parent),
        model=model,
        splits=splits,
        synthetic=bool(metrics.get("synthetic")),
        trained_on=tuple(metrics["trained_on"]) if protocol == CROSS else (),
        trained_by=str(provenance.get("protocol", "")) if protocol == CROSS else "",
        marks=(LEAKED,) if any(leak.get("same_prompt") for leak in leaks) else (),
        splits_sha256=metrics.get("splits_sha256", ""),
    )


def _method(provenance: Mapping[str, Any], model: str) -> str:
    """What made the scores: the model, and the extractors whose vectors it sees."""
    description, sees = MODELS.get(model, (model, ""))
    preset = provenance.get("preset")
    if model == ZERO_SHOT:
        return f"{printable(provenance.get('scorer', 'a scorer'))}, zero-shot"
    if preset in NETWORKS:
        imported = "imported" in provenance
        description = "the authors' checkpoint" if imported else NETWORKS[preset]
        if model != MIXTURE:
            description += f", {sees}"
    else:
        description = description.lower()
    stores = provenance.get("stores")
    names = [
        str(store["extractor"])
        for kind, store in (stores.items() if isinstance(stores, Mapping) else ())
        if isinstance(store, Mapping) and store.get("extractor", "pixels") != "pixels"
        if not sees.endswith("only") or sees.startswith(str(kind))
    ]
    description = f"{description} on {' and '.join(names)}" if names else description
    for key, verb in (("trained_on", "trained on"), ("targets", "learning")):
        several = provenance.get(key)
        if isinstance(several, list) and len(several) > 1:
            description += f", {verb} {' and '.join(map(str, several))}"
    return description


def _value(figures: Mapping[str, Any], splits: int) -> Value:
    """A figure over the splits; None where it is not defined."""
    low, high = figures.get("low"), figures.get("high")
    return Value(
        median=figures.get("median"),
        sd=figures.get("sd") if splits > 1 else None,
        interval=None if low is None or high is None else (low, high),
        why=str(figures.get("why", "")),
    )
