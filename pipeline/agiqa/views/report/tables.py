"""The run's figures as rows and sentences; numbers are printed by `views.kit.number`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from agiqa.core.model_names import MODELS, in_order
from agiqa.data.metric_names import FIGURES
from agiqa.data.splits.preparing import percent
from agiqa.views.kit.number import (
    DASH,
    ceiling_of,
    in_percent,
    interval,
    number,
    over_images,
    over_splits,
    probability,
)
from agiqa.views.report.results import MODEL, Results

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


@dataclass(frozen=True)
class Leaks:
    """What training knew of the test images."""

    clean: bool
    sentences: tuple[str, ...]


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


def comparisons(metrics: Mapping[str, Any]) -> list[str]:
    """The mixture of experts against the others, split by split: SRCC gained, splits won."""
    mixture_srcc = {row["seed"]: row["srcc"] for row in metrics["per_split"].get(MODEL, [])}
    sentences = []
    for name, description in (
        ("ridge", "ridge regression on the same features"),
        ("visual", "the visual expert alone"),
        ("semantic", "the semantic experts alone"),
    ):
        gains = [
            mixture_srcc[row["seed"]] - row["srcc"]
            for row in metrics["per_split"].get(name, [])
            if row["srcc"] is not None and mixture_srcc.get(row["seed"]) is not None
        ]
        if gains:
            won = sum(gain > 0 for gain in gains)
            splits = counted(len(gains), "split")
            if len(gains) < len(mixture_srcc):
                splits += f" where both are defined, of {len(mixture_srcc)}"
            sentences.append(
                f"{number(median(gains), signed=True)} SRCC against {description} "
                f"(median; better in {won} of {splits})"
            )
    return sentences


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


def leaks(results: Results, prompts_known: bool) -> Leaks:
    """How many test images share a prompt, or a whole file, with training or validation."""
    counts = results.provenance.get("leaks", [])
    test = sum(leak["test"] for leak in counts)
    if not test:
        return Leaks(False, ("The run does not say what its splits share.",))
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
    return Leaks(clean, tuple(sentences))


def counted(count: int, noun: str) -> str:
    """Write a count with its noun, as `1 split` or `10 splits`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return f"{percent(part, whole)} ({part:,} of {whole:,})"


def _range(sizes: Sequence[int]) -> str:
    low, high = sizes[0], sizes[-1]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
