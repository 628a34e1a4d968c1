"""Fill the template with a run, and write the page."""

import importlib.metadata
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agiqa.datasets.table import ImagesTable, read_table, write_whole
from agiqa.errors import some
from agiqa.feature_store.fingerprint import canonical, digest
from agiqa.images import printable
from agiqa.report import plots, tables
from agiqa.report.results import MODEL, Results, average_images, read_results
from agiqa.report.thumbnails import galleries, problems


@dataclass(frozen=True)
class Vector:
    """One cached vector and what it was made by."""

    role: str
    extractor: str
    name: str
    short: str  # beginning of the fingerprint's digest
    fingerprint: str  # as JSON


def write_report(run: Path, dataset: Path, out: Path) -> Path:
    """Write the page about an evaluated run.

    Args:
        run: the run's folder.
        dataset: `cache/<dataset>`, for prompts and pictures; absent image files leave gaps only.
        out: the HTML file.

    Returns:
        `out`.

    Raises:
        AgiqaError: no such run, a run not evaluated yet, no images table, or no place to write.
    """
    results = read_results(run)
    table = read_table(dataset)
    write_whole(out, _render(_content(results, table, dataset)).encode("utf-8"))
    return out


def _render(content: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("agiqa.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html.j2").render(content)


def _content(results: Results, table: ImagesTable, dataset: Path) -> dict[str, Any]:
    """Everything that the template names."""
    metrics, provenance = results.metrics, results.provenance
    images = average_images(results)
    low = min(provenance["mos"]["low"], float(images["mos"].min()))
    high = max(provenance["mos"]["high"], float(images["mos"].max()))
    shown = galleries(images, table, low, high)
    missing = problems(shown)
    return {
        "version": importlib.metadata.version("agiqa"),
        "metrics": metrics,
        "provenance": provenance,
        "truth": results.truth,
        "protocol": tables.PROTOCOLS.get(metrics["protocol"], "a split file of its own"),
        "splits": tables.counted(metrics["splits"], "split"),
        "tested": len(images),
        "headline": _headline(metrics),
        "columns": tables.COLUMNS,
        "rows": tables.model_rows(metrics),
        "comparisons": tables.comparisons(metrics),
        "leaks": tables.leaks(results, bool((table.frame["group"] != "").any())),
        "generators": tables.generator_rows(metrics),
        "scatter": plots.scatter(images, results.truth),
        "gates": plots.gates(results) if results.experts else None,
        "gate": {
            name.replace("_", " "): (tables.number(each["mean"]), tables.number(each["sd"]))
            for name, each in metrics.get("gate", {}).items()
        },
        "strip": plots.split_strip(metrics),
        "curves": plots.learning_curves(results.curves) if len(results.curves) else None,
        "galleries": shown,
        "missing": missing,
        "missing_some": some(missing),
        "low": tables.number(low, 2),
        "high": tables.number(high, 2),
        "vectors": _vectors(provenance),
        "settings": results.settings,
        "commands": _commands(results, dataset),
    }


def _headline(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The main model's figures for the top of the page: name, median, deviation."""
    ours = metrics["models"][MODEL]
    names = {"srcc": "SRCC", "plcc_logistic": "PLCC", "rmse": "RMSE"}
    return [
        (label, tables.number(ours[name]["median"]), tables.number(ours[name]["sd"]))
        for name, label in names.items()
    ]


def _vectors(provenance: dict[str, Any]) -> list[Vector]:
    return [
        Vector(
            role, store["extractor"], name, digest(fingerprint)[:12], canonical(fingerprint)
        )
        for role, store in provenance.get("stores", {}).items()
        for name, fingerprint in zip(store["names"], store["fingerprints"], strict=True)
    ]  # fmt: skip


def _commands(results: Results, dataset: Path) -> list[str]:
    """The command lines that make this run again from the data."""
    name, run = shlex.quote(dataset.name), shlex.quote(printable(results.folder))
    params = shlex.quote(printable(results.folder / "params.yaml"))
    cache = printable(dataset.parent)
    where = "" if cache == "cache" else f" --cache {shlex.quote(cache)}"
    made = f"agiqa fit {name}{where} --params {params} --out {run}"
    if imported := results.provenance.get("imported"):
        file = shlex.quote(imported["file"])
        made = f"agiqa import-checkpoint {file} {run} --dataset {name}{where} --params {params}"
    return [
        f"agiqa prepare {name}{where} --params {params}",
        f"agiqa extract {name}{where} --params {params}",
        made,
        f"agiqa evaluate {run}{where}",
        f"agiqa report {run}{where}",
    ]
