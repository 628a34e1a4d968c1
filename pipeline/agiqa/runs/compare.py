"""Runs side by side on the same test images: paired differences, and whether they mean anything.

Two statements about each difference, which need not agree:

* over splits, the corrected resampled t-test (`statistics.paired`): would other splits of this data
  set say the same;
* over images, the paired bootstrap (`statistics.intervals`): groups drawn once for both models and
  all splits, models as they are: would other prompts say the same.

Runs are compared only on the very same splits. `across_protocols` sets two protocols of one data
set side by side, paired by image alone, since their test sides differ.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.data.metric_names import CORRELATIONS, FIGURES
from agiqa.data.metrics import all_metrics, srcc, summarise, why_undefined
from agiqa.data.statistics.intervals import (
    ALIKE,
    Drawn,
    draw,
    p_of_no_difference,
    resample_splits,
    side_interval,
)
from agiqa.data.statistics.paired import corrected_t_test, holm
from agiqa.data.statistics.resampling import TestSide, measured_side
from agiqa.runs.contenders import Contender, read_contenders
from agiqa.runs.measure import LEAST_IMAGES, sides_ratio

__all__ = ["LEAST_IMAGES", "across_protocols", "compare", "read_contenders"]


def compare(contenders: Sequence[Contender]) -> dict[str, Any]:
    """Every contender against the first, on the same splits.

    Returns:
        Plain values for JSON: dataset, target, protocol, splits, what the bootstrap drew; for each
        contender its figures; for each but the first its differences, by figure and by generator.

    Raises:
        AgiqaError: fewer than two, or not the same data set, target, protocol, splits or MOS.
    """
    if len(contenders) < 2:
        raise AgiqaError("expected at least two runs or models to compare, found one")
    first = contenders[0]
    for other in contenders[1:]:
        _require_same(first, other)
    drawn = draw(first.sides)
    resamples = resample_splits(drawn, [_test_sides(contender) for contender in contenders])
    ratio = sides_ratio(first.provenance.get("leaks", []))
    comparisons: list[dict[str, Any]] = [
        {
            "name": other.name,
            "against": first.name,
            "figures": _differences(first, other, resamples[0], resampled, drawn, ratio),
            "generators": _by_generator(first, other, ratio),
        }
        for other, resampled in zip(contenders[1:], resamples[1:], strict=True)
    ]
    for figure in FIGURES:
        adjusted = holm([difference["figures"][figure]["p"] for difference in comparisons])
        for comparison, p in zip(comparisons, adjusted, strict=True):
            comparison["figures"][figure]["p_holm"] = p
    return {**_about(first), **_drawn(drawn), "test_to_train": ratio,
            "contenders": [_described(contender) for contender in contenders],
            "comparisons": comparisons}  # fmt: skip


def _differences(
    first: Contender,
    other: Contender,
    of_first: Mapping[str, NDArray[np.float64]],
    of_other: Mapping[str, NDArray[np.float64]],
    drawn: Drawn,
    ratio: float,
) -> dict[str, Any]:
    """Differences of all figures, over splits and, by their resamples `(S, B)`, over images."""
    differences = {}
    for figure in FIGURES:
        by_split = [
            b[figure] - a[figure] for a, b in zip(first.figures, other.figures, strict=True)
        ]
        with np.errstate(invalid="ignore"):  # undefined in a draw of one prompt's images alone
            gains = (of_other[figure] - of_first[figure]).T
            chosen = np.take_along_axis(gains, drawn.splits, axis=1).mean(axis=1)
        difference = _difference(figure, by_split, ratio)
        images = _bootstrapped(figure, chosen, difference["mean"], drawn)
        why = _why(figure, [first, other], drawn, images)
        differences[figure] = difference | images | why
    return differences


def across_protocols(one: Contender, other: Contender) -> dict[str, Any]:
    """Two protocols of one data set on the images that both tested, such as grouped and random.

    Their splits cannot be paired, their images can: each image's score is averaged over the splits
    that tested it, for each protocol, and the figures of both are taken over the same images. What
    differs is only what training knew, such as an image's prompt. The bootstrap draws groups, or
    images, once for both.

    Raises:
        AgiqaError: another data set or target, or fewer than ten images that both tested.
    """
    for field in ("dataset", "target"):
        _require_equal(one, other, field)
    both = _averaged(one).merge(
        _averaged(other), on=["path", "image_id", "group", "mos"], suffixes=("", "_other")
    )
    if len(both) < LEAST_IMAGES:
        raise AgiqaError(
            f"{one.name} and {other.name} tested {len(both)} images in common with the same "
            f"scores; at least {LEAST_IMAGES} are needed"
        )
    drawn = draw([both])
    mos = both["mos"].to_numpy(float)
    sides = [measured_side(mos, both[name].to_numpy(float)) for name in ("score", "score_other")]
    first, second = resample_splits(drawn, [[side] for side in sides])
    figures = {}
    measured = [all_metrics(side.mos, side.score) for side in sides]
    for figure in FIGURES:
        difference = measured[1][figure] - measured[0][figure]
        images = _bootstrapped(figure, (second[figure] - first[figure])[0], difference, drawn)
        missing = [
            why_undefined(side.mos, side.score, {figure: values[figure]}).get(figure)
            for side, values in zip(sides, measured, strict=True)
        ]
        figures[figure] = {
            "values": [values[figure] for values in measured],
            "difference": difference,
            **images,
            **_reason(next(filter(None, missing), ""), drawn, images),
        }
    return {
        **_about(one),
        "protocol": f"{one.provenance['protocol']} against {other.provenance['protocol']}",
        **_drawn(drawn),
        "contenders": [_described(one), _described(other)],
        "across": {
            "name": other.name, "against": one.name, "images": len(both), "figures": figures
        },
    }  # fmt: skip


def _averaged(contender: Contender) -> pd.DataFrame:
    """One row an image: its score averaged over the splits that tested it."""
    every = pd.concat(contender.sides, ignore_index=True).dropna(subset=["mos", "score"])
    keys = ["path", "image_id", "group"]
    return every.groupby(keys, as_index=False).agg(mos=("mos", "first"), score=("score", "mean"))


def _require_same(one: Contender, other: Contender) -> None:
    """Refuse contenders whose test or training sides differ."""
    for field in ("dataset", "target", "protocol"):
        _require_equal(one, other, field)
    if one.seeds != other.seeds:
        raise AgiqaError(
            f"{one.name} has the splits {one.seeds}, {other.name} {other.seeds}: compare runs of "
            "the same splits"
        )
    digests = [str(side.provenance.get("splits_sha256", "")) for side in (one, other)]
    if all(digests) and digests[0] != digests[1]:
        raise AgiqaError(
            f"{one.name} and {other.name} were fitted on different {one.provenance['protocol']} "
            f"splits (sha256 {digests[0][:12]} and {digests[1][:12]}): fit one of them again"
        )
    for seed, own_side, other_side in zip(one.seeds, one.sides, other.sides, strict=True):
        own, others = (
            set(zip(side["path"], side["image_id"], strict=True)) for side in (own_side, other_side)
        )
        if own != others:
            odd = sorted(path for path, _ in own ^ others)
            raise AgiqaError(
                f"split {seed}: {len(odd)} images are in the test side of only one of {one.name} "
                f"and {other.name}, such as {some([printable(path) for path in odd], 2)}: compare "
                "runs of the same splits and images"
            )
        if not np.allclose(own_side["mos"], other_side["mos"], rtol=1e-5, equal_nan=True):
            raise AgiqaError(
                f"split {seed}: {one.name} and {other.name} were measured against different "
                f"scores of '{one.provenance['target']}': evaluate both again"
            )


def _require_equal(one: Contender, other: Contender, field: str) -> None:
    own, others = one.provenance[field], other.provenance[field]
    if own != others:
        hint = " (or see `agiqa compare --across-protocols`)" if field == "protocol" else ""
        raise AgiqaError(
            f"{one.name} is of the {field} {own}, {other.name} of {others}: compare runs of the "
            f"same {field}{hint}"
        )


def _test_sides(contender: Contender) -> list[TestSide]:
    for seed, side in zip(contender.seeds, contender.sides, strict=True):
        if len(side) < 2 or not np.isfinite(side[["mos", "score"]]).all(axis=None):
            raise AgiqaError(
                f"{contender.name}, split {seed}: expected at least two images with finite scores"
            )
    return [
        measured_side(side["mos"].to_numpy(float), side["score"].to_numpy(float))
        for side in contender.sides
    ]


def _difference(figure: str, by_split: Sequence[float], ratio: float) -> dict[str, Any]:
    """Second minus first, by split."""
    test = corrected_t_test(by_split, ratio)
    sign = -1 if FIGURES[figure].less_is_better else 1
    defined = math.isfinite(test.mean)
    return {
        "mean": test.mean,
        "sd": test.sd,
        "better": sum(sign * gain > 0 for gain in by_split) if defined else None,
        "splits": len(by_split),
        "low": test.low,
        "high": test.high,
        "p": test.p,
        "alike": test.sd == 0 and math.isnan(test.p),
    }


def _bootstrapped(
    figure: str, gains: NDArray[np.float64], gain: float, drawn: Drawn
) -> dict[str, float]:
    """Interval and p over images, of resampled differences `(B,)` and the difference itself."""
    if drawn.too_few:
        return dict.fromkeys(("image_low", "image_high", "image_p"), math.nan)
    low, high = side_interval(gains, gain, drawn.rests_on)
    if figure in CORRELATIONS:
        low, high = max(low, -2.0), min(high, 2.0)
    return {
        "image_low": low,
        "image_high": high,
        "image_p": p_of_no_difference(gains, gain, drawn.rests_on),
    }


def _drawn(drawn: Drawn) -> dict[str, Any]:
    """What the bootstrap drew, how many a test side holds at least, and why that is too few."""
    return {"drawn": drawn.unit, "units": min(drawn.sizes), "too_few": drawn.too_few}


def _why(
    figure: str, pair: Sequence[Contender], drawn: Drawn, images: Mapping[str, float]
) -> dict[str, str]:
    missing = [
        why_undefined(side["mos"], side["score"], {figure: row[figure]}).get(figure)
        for contender in pair
        for row, side in zip(contender.figures, contender.sides, strict=True)
    ]
    return _reason(next(filter(None, missing), ""), drawn, images)


def _reason(undefined: str, drawn: Drawn, images: Mapping[str, float]) -> dict[str, str]:
    """Why the difference, or its interval over images, is not defined; nothing where it is."""
    if not undefined and math.isfinite(images["image_low"]):
        return {}
    return {"why": undefined or drawn.too_few or ALIKE}


def _by_generator(one: Contender, other: Contender, ratio: float) -> dict[str, Any]:
    """SRCC within each generator, over the splits where it has enough images."""
    gains: dict[str, list[float]] = {}
    values: dict[str, list[tuple[float, float]]] = {}
    for own_side, other_side in zip(one.sides, other.sides, strict=True):
        for generator, part in own_side.groupby("generator"):
            if len(part) < LEAST_IMAGES or generator == "":
                continue
            scores = other_side["score"].iloc[part.index]
            pair = srcc(part["mos"], part["score"]), srcc(part["mos"], scores)
            gains.setdefault(str(generator), []).append(pair[1] - pair[0])
            values.setdefault(str(generator), []).append(pair)
    return {
        name: {
            "srcc": [summarise(column)["median"] for column in zip(*values[name], strict=True)],
            **_difference("srcc", gains[name], ratio),
        }
        for name in sorted(gains)
    }


def _about(contender: Contender) -> dict[str, Any]:
    provenance = contender.provenance
    names = ("dataset", "target", "protocol", "synthetic")
    return {name: provenance.get(name) for name in names} | {"splits": len(contender.seeds)}


def _described(contender: Contender) -> dict[str, Any]:
    return {
        "name": contender.name,
        "run": str(contender.folder),
        "model": contender.model,
        "protocol": contender.provenance["protocol"],
        "figures": {
            figure: summarise([row[figure] for row in contender.figures]) for figure in FIGURES
        },
    }
