"""What the page says of a run in words and tables: everything that its template names."""

import importlib.metadata
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agiqa.core.errors import printable
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.metric_names import FIGURES, difference_dashes, number, outside_scale
from agiqa.store.fingerprint import canonical, digest
from agiqa.views.report import tables
from agiqa.views.report.results import MODEL, Results


@dataclass(frozen=True)
class Vector:
    """One cached vector and what it was made by."""

    role: str
    extractor: str
    name: str
    short: str  # beginning of the fingerprint's digest
    fingerprint: str  # as JSON


def content(results: Results, table: ImagesTable, dataset: Path, tested: int) -> dict[str, Any]:
    """The template's names for one run.

    Args:
        results: the run.
        table: its data set.
        dataset: `cache/<dataset>`, for the commands.
        tested: images that have a score.
    """
    metrics, provenance = results.metrics, results.provenance
    return {
        "version": importlib.metadata.version("agiqa"),
        "metrics": metrics,
        "provenance": provenance,
        "truth": results.truth,
        "protocol": tables.PROTOCOLS.get(metrics["protocol"], "a split file of its own"),
        "splits": tables.counted(metrics["splits"], "split"),
        "tested": tested,
        "headline": _headline(metrics),
        "columns": FIGURES,
        "why_dashes": tables.why_dashes(metrics),
        "outside_scale": outside_scale(metrics),
        "rows": [
            *tables.model_rows(metrics),
            *(row for row in [tables.ceiling_row(metrics)] if row),
        ],
        "comparisons": tables.comparisons(metrics),
        "leaks": tables.leaks(results, bool((table.frame["prompt"].str.strip() != "").any())),
        "generators": tables.generator_rows(metrics),
        "gate": {
            name.replace("_", " "): (number(each["mean"]), number(each["sd"]))
            for name, each in metrics.get("gate", {}).items()
        },
        "further": [
            (each, tables.model_rows(each.metrics), tables.why_dashes(each.metrics))
            for each in results.further
        ],
        "vectors": _vectors(provenance),
        "settings": results.settings,
        "commands": _commands(results, dataset),
    }


def side_by_side(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The template's names for several runs.

    Args:
        comparison: of `agiqa.runs.compare.compare`.
    """
    several = len(comparison["comparisons"]) > 1
    heads = ["Figure", "Mean difference", "Better in", "95 % over splits", "p"]
    heads += ["p, Holm"] * several + ["95 % over images", "p"]
    return {
        "rows": tables.run_rows(comparison),
        "heads": [(head, "") for head in heads],
        "differences": tables.difference_rows(comparison),
        "against": comparison["contenders"][0]["name"],
        "other": comparison["contenders"][1]["name"],
        "several": several,
        "why": difference_dashes(each["figures"] for each in comparison["comparisons"]),
    }


def _headline(metrics: dict[str, Any]) -> list[tuple[str, tables.Cell]]:
    """The main model's figures for the top of the page, the error of the scores as they are."""
    ours = metrics["models"][MODEL]
    return [
        (FIGURES[n].heading, tables.cell(ours[n])) for n in ("srcc", "plcc_logistic", "rmse_raw")
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
