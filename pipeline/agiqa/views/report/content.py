"""What the page says: everything that its template names, and what its scripts read as data."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from agiqa.core.errors import printable
from agiqa.core.model_names import MODELS, in_order
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.metric_names import FIGURES
from agiqa.data.splits.files import percent
from agiqa.runs.records import GATE
from agiqa.store.fingerprint import canonical, digest
from agiqa.views.kit.number import (
    DASH,
    ceiling_of,
    coverage_line,
    dashes,
    difference_dashes,
    gate_line,
    in_percent,
    interval,
    number,
    outside_scale,
    over_images,
    over_splits,
    probability,
)
from agiqa.views.report import figures, summaries
from agiqa.views.report.figures import PlotlyFigure, rounded
from agiqa.views.report.results import MODEL, ExplainedImages, Results

PROTOCOLS = {
    "grouped": "all images of one prompt stay on one side of a split",
    "random": "images are split one by one, so a prompt can stand on both sides",
    "paper": "the one random split of the MA-AGIQA paper, prompts on both sides",
    "official": "the sets that the data set's makers published",
}


@dataclass(frozen=True)
class Cell:
    """Median, deviation and interval as text, and whether no model has a better median."""

    median: str
    sd: str = ""
    best: bool = False
    interval: str = ""


@dataclass(frozen=True)
class ReportRow:
    """One model, or one generator, of a table."""

    name: str
    note: str
    cells: tuple[Cell, ...]
    main: bool = False  # the model that the page is about


def content(
    results: Results,
    images: pd.DataFrame,
    table: ImagesTable,
    dataset: Path,
    explained: ExplainedImages,
) -> dict[str, Any]:
    """The template's names for one run: its `average_images`, the data set in `cache/NAME`."""
    metrics, provenance = results.metrics, results.provenance
    low, high = scale(results, images)
    return {
        "metrics": metrics,
        "provenance": provenance,
        "truth": results.truth,
        "protocol": PROTOCOLS.get(metrics["protocol"], "a split file of its own"),
        "splits": counted(metrics["splits"], "split"),
        "tested": len(images),
        "low": number(low, 2),
        "high": number(high, 2),
        **_results(metrics),
        "leaks": leaks(results, bool((table.frame["prompt"].str.strip() != "").any())),
        "vectors": _vectors(provenance),
        "settings": results.settings,
        "explained": explained,
        "validity": [
            ReportRow(aspect, "", tuple(map(Cell, texts))) for aspect, *texts in explained.validity
        ],
        "commands": _commands(results, dataset),
    }  # fmt: skip


def _results(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of metrics.json, in tables and sentences."""
    arrows = {name: " ↓" if FIGURES[name].less_is_better else " ↑" for name in FIGURES}
    return {
        "headline": [  # for the top of the page: the error of the scores as they are
            (FIGURES[name].heading, cell(metrics["models"][MODEL][name]))
            for name in ("srcc", "plcc_logistic", "rmse_raw")
        ],
        "heads": [("Model", "")]
        + [(figure.heading + arrows[name], figure.meaning) for name, figure in FIGURES.items()],
        "why_dashes": dashes(metrics["models"].values(), list(FIGURES)),
        "outside_scale": outside_scale(metrics),
        "rows": [*model_rows(metrics), *ceiling_rows(metrics)],
        "generators": generator_rows(metrics),
        "gate_line": gate_line(metrics),
        "coverage": coverage_line(metrics),
        "covered_ranges": (metrics.get("coverage") or {}).get("ranges", []),
    }


def side_by_side(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The template's names for several runs, by `agiqa.runs.compare.compare`."""
    several = len(comparison["comparisons"]) > 1
    heads = ["Figure", "Mean difference", "Better in", "95 % over splits", "p"]
    heads += ["p, Holm"] * several + ["95 % over images", "p"]
    return {
        "rows": [  # a run each, with median and deviation over the same splits
            ReportRow(run["name"], "", tuple(cell(run["figures"][f], digits=4) for f in FIGURES))
            for run in comparison["contenders"]
        ],
        "heads": [(head, "") for head in heads],
        "differences": difference_rows(comparison),
        "against": comparison["contenders"][0]["name"],
        "other": comparison["contenders"][1]["name"],
        "several": several,
        "why": difference_dashes(pair["figures"] for pair in comparison["comparisons"]),
        "figures": {"differences": figures.difference_figure(comparison)},
    }


def run_figures(results: Results, images: pd.DataFrame) -> dict[str, PlotlyFigure]:
    """The run's figures, of `average_images`, by the name of their place in the page."""
    low, high = scale(results, images)
    truth, experts = results.truth, results.experts
    drawn: dict[str, PlotlyFigure | None] = {
        "scatter": figures.scatter_figure(images, truth),
        "calibration": figures.calibration_figure(summaries.calibration(images), truth),
        "by-generator": figures.by_generator(summaries.residuals_by_generator(images), truth),
        "by-range": figures.by_range(summaries.residuals_by_range(images, low, high), truth),
        "by-prompt": figures.by_prompt(summaries.residuals_by_prompt(images), truth),
        "strip": figures.split_strip(results.metrics),
    }
    if experts:
        weights = summaries.gate_by_generator(results.predictions, experts)
        along_mos = summaries.gate_by_mos(images, experts)
        for index, pair in enumerate(figures.gate_figures(weights, along_mos, truth)):
            drawn |= {f"gate-{index}": pair[0], f"gate-mos-{index}": pair[1]}
    drawn["learning"] = figures.learning_curves(results.curves)
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


def cell(values: Mapping[str, Any], best: bool = False, digits: int = 3) -> Cell:
    """A figure's median, with its deviation and interval where it has them."""
    bounds = interval(values)
    sd = number(values.get("sd"), digits)
    return Cell(
        number(values.get("median"), digits),
        "" if sd == DASH else sd,
        best,
        "" if bounds == DASH else bounds,
    )


def ceiling_rows(metrics: Mapping[str, Any]) -> list[ReportRow]:
    """The best that the raters' own disagreement leaves: a row, or none where it is not known."""
    best = metrics.get("ceiling")
    if not best:
        return []
    assumed = " (assumed)" if best.get("assumed", True) else ""
    note = f"noise of {best['raters']:.4g} raters{assumed}" if best.get("raters") else ""
    return [ReportRow("Ceiling", note, tuple(Cell(number(ceiling_of(best, c))) for c in FIGURES))]


def model_rows(metrics: Mapping[str, Any]) -> list[ReportRow]:
    """The results table: a row for each model, best median of each column marked (ties too).

    Ties are those of the figures shown: what differs in digits that nobody sees is no difference.
    """
    models = {name: metrics["models"][name] for name in in_order(metrics["models"])}
    best = {}
    for column, figure in FIGURES.items():
        shown = [number(values[column].get("median")) for values in models.values()]
        values = [float(text.replace("−", "-")) for text in shown if text != DASH]
        best[column] = number((min if figure.less_is_better else max)(values)) if values else None
    rows = []
    for name, values in models.items():
        cells = tuple(
            cell(values[column], number(values[column].get("median")) == best[column])
            for column in FIGURES
        )
        label, note = MODELS.get(name, (name, ""))
        rows.append(ReportRow(label, note, cells, main=name == MODEL))
    return rows


def generator_rows(metrics: Mapping[str, Any]) -> list[ReportRow]:
    """One row for each generator: images, SRCC, PLCC, mean MOS and score, their gap, coverage."""
    rows = []
    covered = (metrics.get("coverage") or {}).get("generators", {})
    for name, values in metrics.get("generators", {}).items():
        mos, score = values["mean_mos"], values["mean_score"]
        rows.append(
            ReportRow(
                name or "all images",
                _why_undefined(values, metrics["splits"]),
                (
                    Cell(f"{values['images']:,}"),
                    *(cell(values[m]) for m in ("srcc", "plcc")),
                    Cell(number(mos, 2)),
                    Cell(number(score, 2)),
                    Cell(number(None if None in (mos, score) else score - mos, 2, True)),
                    Cell(in_percent(covered.get(name, {}).get("covered"))),
                ),
            )
        )  # fmt: skip
    return rows


def _why_undefined(values: Mapping[str, Any], splits: int) -> str:
    """What a reader should know of a generator's correlations: on how little they stand."""
    if number(values["srcc"]["median"]) == DASH:
        most, least = values.get("most_a_split"), values.get("least_for_correlation")
        if most is None or least is None or most >= least:
            return "no correlation: too few images, or all alike"
        return f"at most {counted(most, 'test image')} a split; a correlation needs {least}"
    measured = values.get("splits", splits)
    return "" if measured == splits else f"correlations of {measured} of {splits} splits"


def difference_rows(comparison: Mapping[str, Any]) -> list[ReportRow]:
    """Each run against the first, a row for each figure: both intervals and their p."""
    several = len(comparison["comparisons"]) > 1
    rows = []
    for pair in comparison["comparisons"]:
        for name, figure in FIGURES.items():
            values = pair["figures"][name]
            mean = Cell(number(values["mean"], 4, True), number(values["sd"], 4).replace(DASH, ""))
            texts = [*over_splits(values), *over_images(values)]
            texts[3:3] = [probability(values["p_holm"])] if several else []
            note = f"{pair['name']} against {pair['against']}" if several else ""
            rows.append(ReportRow(figure.heading, note, (mean, *map(Cell, texts))))
    return rows


def leaks(results: Results, prompts_known: bool) -> dict[str, Any]:
    """How many test images share a prompt, or a whole file, with training or validation."""
    counts = results.provenance.get("leaks", [])
    test = sum(leak["test"] for leak in counts)
    if not test:
        return {"clean": False, "sentences": ["The run does not say what its splits share."]}
    group, file = (sum(leak[k] for leak in counts) for k in ("same_group", "same_file"))
    prompt = sum(leak.get("same_prompt", leak["same_group"]) for leak in counts)
    splits = counted(len(counts), "split")
    sentences = []
    if not prompts_known:
        sentences.append("The data set names no prompts, so shared prompts cannot be counted.")
    elif prompt:
        sentences.append(
            f"{_share(prompt, test)} of the test images share their prompt with a training or "
            "validation image: the figures hold for prompts that training saw, not for new ones."
        )
    if group and not (prompts_known and group == prompt):
        sentences.append(
            f"{_share(group, test)} of the test images share their group with a training or "
            "validation image."
        )
    if file:
        sentences.append(
            f"{_share(file, test)} of the test images are byte-identical to a training or "
            "validation image."
        )
    clean = not prompt and not group and not file
    if clean:
        shared = "its prompt or its file" if prompts_known else "its file"
        sentences.append(f"No test image shares {shared} with a training or validation image.")
    sizes = [sorted(leak[side] for leak in counts) for side in ("train", "val", "test")]
    train, val, tested = (_range(size) for size in sizes)
    sentences.append(
        f"Counted over {splits} of {train} training, {val} validation and {tested} test images."
    )
    return {"clean": clean, "sentences": sentences}


def counted(count: int, noun: str) -> str:
    """Write a count with its noun, as `1 split` or `10 splits`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return f"{percent(part, whole)} ({part:,} of {whole:,})"


def _range(sizes: Sequence[int]) -> str:
    low, high = sizes[0], sizes[-1]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
