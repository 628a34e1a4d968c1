"""Where results come from: what `evaluate` left in the folders that a user names, and publications.

A run's own data set stands in RUN/metrics.json, its further targets in RUN/targets/NAME/, further
data sets that it was trained on in RUN/datasets/NAME/, others that it was tested on in
RUN/cross/DATASET/. Nothing but these files and provenance.json is read, so that a table takes no
time. The systems of `published.yaml` keep their digits as printed; the file ships with the package
and is taken at its word; tests/views/tables/test_published.py checks that every entry is complete
and has no key or word that is not meant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, one_line, printable, some
from agiqa.core.model_names import MODELS, ZERO_SHOT, in_order
from agiqa.core.run_folders import PROVENANCE, provenance_files
from agiqa.core.trees import read_yaml
from agiqa.runs.records import METRICS, read_metrics, read_provenance, result_files
from agiqa.stage2.presets import MIXTURE
from agiqa.views.tables import grids
from agiqa.views.tables.grids import Result, Value

PROTOCOLS = {  # protocols in words, for those who did not read docs/protocols.md
    "grouped": "no prompt and no file on two sides",
    "random": "by image, so prompts stand on several sides",
    "paper": "MA-AGIQA's own single split, by image",
    "ipce": "IPCE's splits, as imported",
    "official": "the data set's own sets",
    grids.CROSS: "trained on other data sets than tested on",
}
# One metrics.json: its folder, the run's provenance, the content.
_MetricsFile = tuple[Path, Mapping[str, Any], Mapping[str, Any]]
NETWORKS = {"paper": "MA-AGIQA's network", "paper-fixed": "MA-AGIQA's network, without its quirks"}
PUBLISHED = Path(__file__).with_name("published.yaml")
SELECTIONS = {
    "test": "epoch chosen on the reported side",
    "validation": "epoch chosen on a validation side",
    "untrained": "not trained on this data set",
    "unknown": "how the epoch was chosen was not found",
}
CHECKED = {"read": "read in the authors' code or splits", "printed": "as a table prints it"}


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
    named = in_order(dict.fromkeys(model for *_, metrics in files for model in metrics["models"]))
    if unknown := [model for model in models if model not in (*named, "all")]:
        raise AgiqaError(f"no run has a model {some(unknown)}; there are: {', '.join(named)}, all")
    selected = [model for model in named if model in (*models, ZERO_SHOT) or "all" in models]
    results = [
        _result(file, model) for model in selected for file in files if model in file[2]["models"]
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


def _read(run: Path, path: Path) -> _MetricsFile:
    provenance = read_provenance(run, partial=True)
    metrics = read_metrics(path.parent, ("dataset", "models", "protocol", "splits", "target"))
    if metrics["protocol"] == grids.CROSS and not metrics.get("trained_on"):
        raise AgiqaError(
            f"{printable(path)}: damaged (no trained_on): run `agiqa cross` again on "
            f"{printable(run)}"
        )
    return path.parent, provenance, metrics


def _result(file: _MetricsFile, model: str) -> Result:
    folder, provenance, metrics = file
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
            for name in grids.FIGURES
            if name in metrics["models"][model]
        },
        ours=True,
        protocol_note=words,
        source=printable(folder),
        model=model,
        splits=splits,
        synthetic=bool(metrics.get("synthetic")),
        trained_on=tuple(metrics["trained_on"]) if protocol == grids.CROSS else (),
        trained_by=str(provenance.get("protocol", "")) if protocol == grids.CROSS else "",
        marks=(grids.LEAKED,) if any(leak.get("same_prompt") for leak in leaks) else (),
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


def published_results() -> list[Result]:
    """Give every published result, in the order of the file.

    Raises:
        AgiqaError: the file is damaged.
    """
    try:
        systems = read_yaml(PUBLISHED)
    except (OSError, ValueError) as error:
        raise AgiqaError(
            f"{PUBLISHED}: damaged ({one_line(error)}): install agiqa again"
        ) from error
    return [_published(system | result) for system in systems for result in system["results"]]


def _published(entry: Mapping[str, Any]) -> Result:
    trained_on = tuple(entry.get("trained_on", ()))
    selection, leaked, in_words = entry["selection"], 0, ""
    if "leaked" in entry:  # test images whose prompt is in training, such as "597 of 597"
        leaked, total = map(int, entry["leaked"].split(" of "))
        in_words = f"the prompts of {leaked:,} of {total:,} test images are in training"
    holds = {
        grids.LEAKED: leaked > 0,
        grids.TEST_SELECTED: selection == "test" and not trained_on,
        grids.NOT_SEEN: selection == "unknown" and not trained_on,
    }
    return Result(
        method=entry["method"] + ", zero-shot" * (selection == "untrained"),
        dataset=entry["dataset"],
        target=entry["target"],
        protocol=grids.CROSS if trained_on else entry.get("protocol", grids.AS_PUBLISHED),
        figures={name: _printed(entry[name]) for name in grids.FIGURES if name in entry},
        ours=False,
        protocol_note="; ".join(filter(None, (entry["said"], SELECTIONS[selection], in_words))),
        source=f"{entry['source']}, {CHECKED[entry['checked']]}",
        note=entry.get("note", ""),
        trained_on=trained_on,
        marks=tuple(mark for mark, held in holds.items() if held),
        splits_sha256=str(entry.get("splits_sha256", "")),
    )


def _printed(figure: str | list[str]) -> Value:
    """Read a figure, or the two ends of a range."""
    if isinstance(figure, str):
        return Value(median=float(figure), printed=(figure,))
    return Value(printed=tuple(figure))
