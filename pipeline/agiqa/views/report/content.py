"""What the page says: everything that its template names, and what its scripts read as data."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from agiqa.core.errors import printable
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.metric_names import FIGURES
from agiqa.runs.records import GATE
from agiqa.store.fingerprint import canonical, digest
from agiqa.views.kit.number import (
    coverage_line,
    dashes,
    difference_dashes,
    gate_line,
    in_percent,
    number,
    outside_scale,
)
from agiqa.views.report import summaries, tables
from agiqa.views.report.figures import agreement, groups, splits
from agiqa.views.report.figures.style import PlotlyFigure, rounded
from agiqa.views.report.results import MODEL, Results


def content(results: Results, table: ImagesTable, dataset: Path, tested: int) -> dict[str, Any]:
    """The template's names for one run, on the data set in `cache/NAME`, on `tested` images."""
    metrics, provenance = results.metrics, results.provenance
    arrows = {name: " ↓" if FIGURES[name].less_is_better else " ↑" for name in FIGURES}
    return {
        "metrics": metrics,
        "provenance": provenance,
        "truth": results.truth,
        "protocol": tables.PROTOCOLS.get(metrics["protocol"], "a split file of its own"),
        "splits": tables.counted(metrics["splits"], "split"),
        "tested": tested,
        "headline": [  # for the top of the page: the error of the scores as they are
            (FIGURES[name].heading, tables.cell(metrics["models"][MODEL][name]))
            for name in ("srcc", "plcc_logistic", "rmse_raw")
        ],
        "heads": [("Model", "")]
        + [(figure.heading + arrows[name], figure.meaning) for name, figure in FIGURES.items()],
        "why_dashes": dashes(metrics["models"].values(), list(FIGURES)),
        "outside_scale": outside_scale(metrics),
        "rows": [*tables.model_rows(metrics), *tables.ceiling_rows(metrics)],
        "comparisons": tables.comparisons(metrics),
        "leaks": tables.leaks(results, bool((table.frame["prompt"].str.strip() != "").any())),
        "generators": tables.generator_rows(metrics),
        "gate_line": gate_line(metrics),
        "coverage": coverage_line(metrics),
        "covered_ranges": [
            (number(span["low"], 2), number(span["high"], 2), in_percent(span["covered"]))
            for span in (metrics.get("coverage") or {}).get("ranges", [])
        ],
        "gate": {
            name.replace("_", " "): (number(weight["mean"]), number(weight["sd"]))
            for name, weight in metrics.get("gate", {}).items()
        },
        "further": [
            (further, tables.model_rows(further.metrics),
             dashes(further.metrics["models"].values(), list(FIGURES)))
            for further in results.further
        ],
        "vectors": _vectors(provenance),
        "settings": results.settings,
        "commands": _commands(results, dataset),
    }  # fmt: skip


def side_by_side(runs: Sequence[Results], comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The template's names for several runs, by `agiqa.runs.compare.compare`.

    A single split has nothing to join in a figure.
    """
    figures = {"differences": splits.difference_figure(comparison)}
    if comparison["splits"] > 1:
        figures["by-split"] = splits.splits_figure(runs)
    several = len(comparison["comparisons"]) > 1
    heads = ["Figure", "Mean difference", "Better in", "95 % over splits", "p"]
    heads += ["p, Holm"] * several + ["95 % over images", "p"]
    return {
        "rows": [  # a run each, with median and deviation over the same splits
            tables.ReportRow(
                run["name"], "", tuple(tables.cell(run["figures"][f], digits=4) for f in FIGURES)
            )
            for run in comparison["contenders"]
        ],
        "heads": [(head, "") for head in heads],
        "differences": tables.difference_rows(comparison),
        "against": comparison["contenders"][0]["name"],
        "other": comparison["contenders"][1]["name"],
        "several": several,
        "why": difference_dashes(pair["figures"] for pair in comparison["comparisons"]),
        "figures": figures,
    }


def run_figures(results: Results, images: pd.DataFrame) -> dict[str, PlotlyFigure]:
    """The run's figures, of `average_images`, by the name of their place in the page."""
    low, high = scale(results, images)
    truth, experts = results.truth, results.experts
    drawn: dict[str, PlotlyFigure | None] = {
        "scatter": agreement.scatter_figure(images, truth),
        "calibration": agreement.calibration_figure(summaries.calibration(images), truth),
        "by-generator": groups.by_generator(summaries.residuals_by_generator(images), truth),
        "by-range": groups.by_range(summaries.residuals_by_range(images, low, high), truth),
        "by-prompt": groups.by_prompt(
            summaries.residuals_by_prompt(images), truth, summaries.prompt_share(images)
        ),
        "strip": splits.split_strip(results.metrics),
    }
    if experts:
        weights = summaries.gate_by_generator(results.predictions, experts)
        along_mos = summaries.gate_by_mos(images, experts)
        for index, pair in enumerate(groups.gate_figures(weights, along_mos, truth)):
            drawn |= {f"gate-{index}": pair[0], f"gate-mos-{index}": pair[1]}
    drawn["learning"] = splits.learning_curves(results.curves)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def scale(results: Results, images: pd.DataFrame) -> tuple[float, float]:
    """The ends of the MOS, in training and in the test."""
    low, high = results.provenance["mos"]["low"], results.provenance["mos"]["high"]
    if len(images):
        low, high = min(low, float(images["mos"].min())), max(high, float(images["mos"].max()))
    return math.floor(low * 1000) / 1000, math.ceil(high * 1000) / 1000


def image_columns(
    runs: Sequence[Results], images: Sequence[pd.DataFrame], table: ImagesTable
) -> dict[str, Any]:
    """What the gallery, the dialog and the points know of each image: columns, one row an image.

    What repeats (prompts, generators) is written once and pointed to. Runs side by side tested the
    same images, so they differ in scores and gates alone: `images` are of `average_images`, for
    each run, in the order of the paths.
    """
    first = images[0]
    prompts = table.frame.set_index("path")["prompt"]
    named = {
        "prompt": [str(prompts.get(path, "")) for path in first["path"]],
        "group": first["group"].astype(str),
        "generator": first["generator"].astype(str),
    }
    columns: dict[str, Any] = {"path": [printable(path) for path in first["path"]]}
    for name, values in named.items():
        codes, names = pd.factorize(pd.Series(values, dtype=object))
        columns |= {name: codes, f"{name}s": [str(value) for value in names]}
    return columns | {
        "mos": rounded(first["mos"], 3),
        "splits": [int(count) for count in first["splits"]],
        "runs": [
            {
                "name": run.name,
                "score": rounded(rows["score"], 3),
                "experts": [expert.replace("_", " ") for expert in run.experts],
                "gate": [rounded(rows[GATE + expert], 3) for expert in run.experts],
            }
            for run, unordered in zip(runs, images, strict=True)
            for rows in [unordered.set_index("path").reindex(first["path"])]
        ],
    }


def _vectors(provenance: dict[str, Any]) -> list[dict[str, str]]:
    """The cached vectors and what each was made by."""
    return [
        {
            "role": role,
            "extractor": store["extractor"],
            "name": name,
            "short": digest(fingerprint)[:12],
            "fingerprint": canonical(fingerprint),
        }
        for role, store in provenance.get("stores", {}).items()
        for name, fingerprint in zip(store["names"], store["fingerprints"], strict=True)
    ]


def _commands(results: Results, dataset: Path) -> list[str]:
    """The command lines that make this run again from the data."""
    name, run = shlex.quote(dataset.name), shlex.quote(printable(results.folder))
    params = shlex.quote(printable(results.folder / "params.yaml"))
    cache = printable(dataset.parent)
    cached = "" if cache == "cache" else f" --cache {shlex.quote(cache)}"
    fit = f"agiqa fit {name}{cached} --params {params} --out {run}"
    if imported := results.provenance.get("imported"):
        file = shlex.quote(imported["file"])
        fit = f"agiqa import-checkpoint {file} {run} --dataset {name}{cached} --params {params}"
    return [
        f"agiqa prepare {name}{cached} --params {params}",
        f"agiqa extract {name}{cached} --params {params}",
        fit,
        f"agiqa evaluate {run}{cached}",
        f"agiqa report {run}{cached}",
    ]
