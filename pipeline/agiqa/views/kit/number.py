"""How a figure is printed, in every table, page and command: digits, signs, dashes and why."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agiqa.data.metric_names import FIGURES

DASH = "–"


def number(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """A figure with a true minus sign; a dash for what is not defined."""
    if value is None or not math.isfinite(value):
        return DASH
    value = round(value, digits) + 0.0  # no minus before a zero
    return f"{value:{'+' if signed and value else ''}.{digits}f}".replace("-", "−")


def in_percent(share: float | None) -> str:
    """A share as `90.3 %`; a dash for what is not defined."""
    return DASH if share is None or not math.isfinite(share) else f"{100 * share:.3g} %"


def with_deviation(values: Mapping[str, Any], digits: int = 3) -> str:
    """`0.885 ± 0.009`; without a deviation where there is none, as of a single split."""
    median, sd = number(values.get("median"), digits), number(values.get("sd"), digits)
    return median if DASH in (median, sd) else f"{median} ± {sd}"


def interval(values: Mapping[str, Any], digits: int = 3) -> str:
    """`0.865…0.899`; a dash where there is none."""
    low, high = number(values.get("low"), digits), number(values.get("high"), digits)
    return DASH if DASH in (low, high) else f"{low}…{high}"


def without_zero(text: str) -> str:
    """A number without the zero before its point, as the field prints correlations."""
    return re.sub(r"^(−?)0\.", r"\1.", text.replace("-", "−"))


def probability(p: float | None) -> str:
    """A p value without its leading zero."""
    return "< .001" if p is not None and p < 0.001 else without_zero(number(p))


def ends(low: float | None, high: float | None, digits: int = 4) -> str:
    """The interval of a difference, `−0.0123 … +0.0456`; a dash where there is none."""
    texts = number(low, digits, True), number(high, digits, True)
    return DASH if DASH in texts else " … ".join(texts)


def over_splits(values: Mapping[str, Any]) -> list[str]:
    """What is said of a paired difference over splits: how often better, `7 of 10`; 95 %, p."""
    better = DASH if values["better"] is None else f"{values['better']} of {values['splits']}"
    return [better, ends(values["low"], values["high"]), probability(values["p"])]


def over_images(values: Mapping[str, Any]) -> list[str]:
    """What is said of a difference over images: 95 % by the paired bootstrap, p."""
    return [ends(values["image_low"], values["image_high"]), probability(values["image_p"])]


def dashes(rows: Iterable[Mapping[str, Mapping[str, Any]]], intervals: Sequence[str] = ()) -> str:
    """Why there are dashes in a table, one sentence a reason; empty where there are none.

    Rows are the figures that it shows by name, with `why` where one is not defined; `intervals` are
    the names of those whose intervals it shows.
    """
    by_reason: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, values in row.items():
            reason, missing = values.get("why"), number(values.get("median")) == DASH
            if reason and (missing or name in intervals):
                heading = FIGURES[name].heading if missing else f"95 % of {FIGURES[name].heading}"
                by_reason.setdefault(str(reason), {})[heading] = None
    return " ".join(f"{DASH} {', '.join(names)}: {why}." for why, names in by_reason.items())


def difference_dashes(differences: Iterable[Mapping[str, Mapping[str, Any]]]) -> str:
    """`dashes`, of tables of differences with their intervals over images."""
    return dashes(
        [
            {name: {"median": values.get("mean", values.get("difference"))} | dict(values)
             for name, values in figures.items()}
            for figures in differences
        ],
        tuple(FIGURES),
    )  # fmt: skip


def ceiling_of(best: Mapping[str, Any], name: str) -> float | None:
    """The most, or the least, that the raters' noise leaves of a figure; raw or fitted alike."""
    value: float | None = best.get({"plcc_logistic": "plcc", "rmse_raw": "rmse"}.get(name, name))
    return value


def outside_scale(metrics: Mapping[str, Any]) -> str:
    """How many scores lie outside the scale of the training, in a sentence; empty where none do."""
    counts = metrics.get("outside_scale")
    if not counts or not counts["below"] + counts["above"]:
        return ""
    beyond = counts["below"] + counts["above"]
    return (
        f"{beyond:,} of {counts['scores']:,} test scores of the mixture lie outside the scale of "
        f"the training, {number(counts['low'], 2)} to {number(counts['high'], 2)}: "
        f"{counts['below']:,} below, {counts['above']:,} above."
    )


def gate_line(metrics: Mapping[str, Any]) -> str:
    """What validation made of the gate and what it adds, in a sentence; empty where unknown."""
    gating = metrics.get("gating")
    if not gating or not gating["epochs"]:
        return ""
    epochs, gain = gating["epochs"], gating["gain"]
    moving = [epoch for epoch in epochs if epoch > 0]
    if not moving:
        return "gate: constant, validation found nothing better."
    line = f"gate: moves with the image in {len(moving)} of {len(epochs)} splits"
    epoch = f"{min(moving)}" if min(moving) == max(moving) else f"{min(moving)} to {max(moving)}"
    line += f" (epoch {epoch} kept), by ± {number(gating['deviation'])} over a test side's images"
    line += f"; SRCC {number(gain['mean'], 4, signed=True)} beside one constant mixture"
    bounds = interval(gain, 4)
    return f"{line}." if bounds == DASH else f"{line} (95 %: {bounds}, p = {number(gain['p'])})."


def coverage_line(metrics: Mapping[str, Any]) -> str:
    """How many of the test images' MOS the prediction intervals hold; empty where unknown."""
    coverage = metrics.get("coverage")
    if not coverage or coverage["covered"] is None:
        return ""
    level, held = in_percent(coverage["level"]), in_percent(coverage["covered"])
    by_split = [share for share in coverage["splits"] if share is not None]
    pair = min(by_split), max(by_split)
    ends = f", by split {in_percent(pair[0])} to {in_percent(pair[1])}" if len(by_split) > 1 else ""
    width = number(coverage["width"], 2)
    return f"{level} prediction intervals hold {held} of the test images' MOS{ends}; width {width}."
