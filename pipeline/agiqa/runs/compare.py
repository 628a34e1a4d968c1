"""Runs side by side on the same test images: paired differences, and whether they mean anything.

Two statements about each difference, which need not agree:

* over splits, the corrected resampled t-test (`statistics.paired`): would other splits of this data
  set say the same;
* over images, the paired bootstrap (`statistics.intervals`): groups drawn once for both models and
  all splits, models as they are: would other prompts say the same.

Runs are compared only on the very same splits. Two protocols of one data set can be set side by
side, paired by image alone, since their test sides differ (`across_protocols`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from agiqa.core.errors import AgiqaError, UsageError, printable, some
from agiqa.core.model_names import ZERO_SHOT, in_order
from agiqa.core.run_folders import PROVENANCE
from agiqa.data.metric_names import CORRELATIONS, FIGURES
from agiqa.data.metrics import all_metrics, srcc, summarise, why_undefined
from agiqa.data.statistics.intervals import (
    ALIKE,
    Drawn,
    TestSide,
    draw,
    measured_side,
    p_of_no_difference,
    resample_splits,
    side_interval,
)
from agiqa.data.statistics.paired import corrected_t_test, holm
from agiqa.runs.files import Run, provenance_of, require_as_published
from agiqa.runs.measure import LEAST_IMAGES, sides_ratio
from agiqa.runs.publish import RESULTS, START, fetch_run, is_on_hub
from agiqa.runs.records import METRICS, PREDICTIONS, read_metrics, read_predictions, read_provenance
from agiqa.stage2.presets import MIXTURE


@dataclass(frozen=True)
class Contender:
    """One model of one evaluated run."""

    name: str  # as the user gave it
    folder: Path
    model: str
    provenance: dict[str, Any]
    figures: list[dict[str, float]]  # by split, from metrics.json
    sides: list[pd.DataFrame]  # by split, the test side in the order of its paths

    @property
    def seeds(self) -> list[int]:
        """List the seeds of its splits."""
        return [int(row["seed"]) for row in self.figures]


def compare(*runs: Run | Path | str, across_protocols: bool = False) -> dict[str, Any]:
    """Compare evaluated runs on the same splits, each with the first: `compare("a", "b:ridge")`.

    Args:
        runs: runs or their folders, as text with `:MODEL` for another model than the mixture of
            experts; one alone has its models compared.
        across_protocols: of two runs of one data set by different protocols, paired by image.

    Returns:
        Plain values for JSON: dataset, target, protocol, splits, what the bootstrap drew;
        `contenders` with the figures of each; `comparisons` with the differences of each but the
        first by figure, their intervals and p, and by generator; with `across_protocols` `across`.

    Raises:
        UsageError: `across_protocols` of other than two runs.
        AgiqaError: not evaluated, no such model, fewer than two, or not the same data set, target,
            protocol, splits or MOS.
    """
    if across_protocols and len(runs) != 2:
        raise UsageError(f"--across-protocols takes two runs, found {len(runs)}.")
    names = [str(run.folder) if isinstance(run, Run) else str(run) for run in runs]
    contenders = read_contenders(names)
    if across_protocols:
        return _across_protocols(*contenders)
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
    about = _describe(contenders, drawn, first.provenance["protocol"])
    return {**about, "test_to_train": ratio, "comparisons": comparisons}


def _differences(
    first: Contender,
    other: Contender,
    of_first: Mapping[str, NDArray[np.float64]],
    of_other: Mapping[str, NDArray[np.float64]],
    drawn: Drawn,
    ratio: float,
) -> dict[str, Any]:
    """Differences of all figures, over splits and, by their resamples `(S, B)`, over images."""
    sides = [
        (row, side["mos"], side["score"])
        for contender in (first, other)
        for row, side in zip(contender.figures, contender.sides, strict=True)
    ]
    differences = {}
    for figure in FIGURES:
        by_split = [
            b[figure] - a[figure] for a, b in zip(first.figures, other.figures, strict=True)
        ]
        with np.errstate(invalid="ignore"):  # undefined in a draw of one prompt's images alone
            gains = (of_other[figure] - of_first[figure]).T
            chosen = np.take_along_axis(gains, drawn.splits, axis=1).mean(axis=1)
        difference = _difference(figure, by_split, ratio)
        images = _over_images(figure, chosen, difference["mean"], drawn, sides)
        differences[figure] = difference | images
    return differences


def _across_protocols(one: Contender, other: Contender) -> dict[str, Any]:
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
    measured = [all_metrics(side.mos, side.score) for side in sides]
    undrawn = [(row, side.mos, side.score) for row, side in zip(measured, sides, strict=True)]
    figures = {}
    for figure in FIGURES:
        values = [row[figure] for row in measured]
        gain, gains = values[1] - values[0], (second[figure] - first[figure])[0]
        images = _over_images(figure, gains, gain, drawn, undrawn)
        figures[figure] = {"values": values, "difference": gain, **images}
    protocol = f"{one.provenance['protocol']} against {other.provenance['protocol']}"
    across = {
        "name": other.name, "against": one.name, "images": len(both), "figures": figures
    }  # fmt: skip
    return {**_describe([one, other], drawn, protocol), "across": across}


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
    """Second minus first, by split: the test, and in how many splits the second is better."""
    test = corrected_t_test(by_split, ratio)
    sign = -1 if FIGURES[figure].less_is_better else 1
    better = sum(sign * gain > 0 for gain in by_split) if math.isfinite(test.mean) else None
    alike = test.sd == 0 and math.isnan(test.p)
    return {**vars(test), "better": better, "splits": len(by_split), "alike": alike}


def _over_images(
    figure: str,
    gains: NDArray[np.float64],
    gain: float,
    drawn: Drawn,
    sides: Iterable[tuple[Mapping[str, float], ArrayLike, ArrayLike]],
) -> dict[str, Any]:
    """Interval and p over images, and why the difference or its interval is not defined.

    Args:
        figure: its name.
        gains: resampled differences `(B,)`.
        gain: the difference itself.
        drawn: what was drawn.
        sides: figures, MOS and scores of each test side.
    """
    low = high = p = math.nan
    if not drawn.too_few:
        low, high = side_interval(gains, gain, drawn.rests_on)
        p = p_of_no_difference(gains, gain, drawn.rests_on)
        if figure in CORRELATIONS:
            low, high = max(low, -2.0), min(high, 2.0)
    why = [
        why_undefined(mos, score, {figure: row[figure]}).get(figure) for row, mos, score in sides
    ]
    undefined = next(filter(None, why), "")
    images: dict[str, Any] = {"image_low": low, "image_high": high, "image_p": p}
    if undefined or not math.isfinite(low):
        images["why"] = undefined or drawn.too_few or ALIKE
    return images


def _by_generator(one: Contender, other: Contender, ratio: float) -> dict[str, Any]:
    """SRCC within each generator, over the splits where it has enough images."""
    srccs: dict[str, list[tuple[float, float]]] = {}
    for own_side, other_side in zip(one.sides, other.sides, strict=True):
        for generator, part in own_side.groupby("generator"):
            if len(part) < LEAST_IMAGES or generator == "":
                continue
            scores = other_side["score"].iloc[part.index]
            pair = srcc(part["mos"], part["score"]), srcc(part["mos"], scores)
            srccs.setdefault(str(generator), []).append(pair)
    return {
        name: {
            "srcc": [summarise(column)["median"] for column in zip(*pairs, strict=True)],
            **_difference("srcc", [after - before for before, after in pairs], ratio),
        }
        for name, pairs in sorted(srccs.items())
    }


def _describe(contenders: Sequence[Contender], drawn: Drawn, protocol: str) -> dict[str, Any]:
    """What is compared, what the bootstrap drew, and each contender with its own figures."""
    about = contenders[0].provenance
    return {
        "dataset": about.get("dataset"),
        "target": about.get("target"),
        "protocol": protocol,
        "synthetic": about.get("synthetic"),
        "splits": len(contenders[0].seeds),
        "drawn": drawn.unit,
        "units": min(drawn.sizes),  # that a test side holds at least
        "too_few": drawn.too_few,
        "contenders": [
            {
                "name": contender.name,
                "run": str(contender.folder),
                "model": contender.model,
                "protocol": contender.provenance["protocol"],
                "figures": {
                    figure: summarise([row[figure] for row in contender.figures])
                    for figure in FIGURES
                },
            }
            for contender in contenders
        ],
    }


def read_contenders(given: Sequence[str]) -> list[Contender]:
    """The runs that a user named, as RUN or RUN:MODEL; a single RUN stands for all its models.

    Raises:
        AgiqaError: not an evaluated run, no such model in it, or a damaged file.
    """
    wanted = [(name, *_run_and_model(name)) for name in given]
    runs = {folder: _read_models(folder) for _, folder, _ in wanted}
    contenders = []
    for name, folder, model in wanted:
        models = runs[folder]
        if len(wanted) == 1 and not model:
            return list(models.values())
        model = model or (ZERO_SHOT if ZERO_SHOT in models else MIXTURE)
        if model not in models:
            raise AgiqaError(
                f"{printable(folder)} has no model '{model}'; it has {', '.join(models)}"
            )
        contenders.append(replace(models[model], name=name))
    return contenders


def _run_and_model(name: str) -> tuple[Path, str]:
    if is_on_hub(name):
        address, _, model = name.removeprefix(START).partition(":")
        return fetch_run(START + address), model
    folder, separator, model = name.rpartition(":")
    if separator and not Path(name).exists():
        return Path(folder), model
    return Path(name), ""


def _read_models(folder: Path) -> dict[str, Contender]:
    """Every model of an evaluated run, of results in one, or of a published scorer's results."""
    scorer = (folder / PROVENANCE).is_file() and "scorer" in read_provenance(folder, True)
    provenance = read_provenance(folder, True) if scorer else provenance_of(folder)
    if "published" in provenance and not (folder / METRICS).is_file():
        raise AgiqaError(
            f"{printable(folder)}: was published without its results (`agiqa publish --results`), "
            "so it cannot be compared"
        )
    require_as_published(folder, provenance, tuple(RESULTS))
    per_split = read_metrics(folder, ("models", "per_split"))["per_split"]
    frame = read_predictions(folder)
    models = {}
    for model in in_order(per_split):
        parts = {
            int(str(seed)): part.sort_values("path").reset_index(drop=True)
            for seed, part in frame[frame["model"] == model].groupby("seed")
        }
        rows = per_split[model]
        sizes = [len(parts.get(row["seed"], ())) for row in rows]
        if any(not n or row.get("images", n) != n for row, n in zip(rows, sizes, strict=True)):
            raise AgiqaError(
                f"{printable(folder)}: damaged results ({PREDICTIONS} and {METRICS} differ): "
                "run `agiqa evaluate` again"
            )
        sides = [parts[row["seed"]] for row in rows]
        figures = [
            {"seed": row["seed"]}
            | {name: math.nan if row.get(name) is None else float(row[name]) for name in FIGURES}
            for row in rows
        ]
        models[model] = Contender(model, folder, model, provenance, figures, sides)
    return models
