"""Stage 2, `evaluate`: the test side of every split, read once, scored and measured (`measure`).

Every test image is scored. The preset `paper` gives, beside, the figures that the authors' loader
would: it shuffles the test side and drops the images that do not fill a batch, a few of them,
others each time.

A run's own folder has the results on its first data set and target; `files` says where those of
further targets and data sets are.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError
from agiqa.core.json_text import write_json
from agiqa.data.datasets.table import ImagesTable
from agiqa.runs.files import (
    DATASETS,
    TARGETS,
    Evaluation,
    Run,
    load_run,
    require_unpublished,
    write_all_results,
)
from agiqa.runs.measure import best_possible, describe_gating, measure
from agiqa.runs.records import GATE, HIGH, LOW
from agiqa.stage2.contract import SplitScores
from agiqa.stage2.features import Sides, require_same_stores
from agiqa.stage2.fit_data import FitData, load_fit_data
from agiqa.stage2.predictors import (
    extra_models,
    gate_epochs,
    require_width,
    score_split,
    whole_batches,
)
from agiqa.stage2.presets import MIXTURE

log = logging.getLogger(__name__)

LIST = "targets.json"  # which target's results are where


@dataclass(frozen=True)
class TestSet:
    """What a run is tested on."""

    __test__ = False  # pytest takes it for a test of its own

    data: FitData
    sides: Sides  # by the run's split seeds, row numbers of the test side
    columns: Sequence[str | None]  # of the run's targets, in the table; None: it has no such
    protocol: str
    scale: int = 0  # on the scale of which of the run's data sets it scores
    leaks: Sequence[Mapping[str, Any]] = ()  # of the splits
    learnt: bool = False  # whether the run was trained on the data set, and knows its errors there


def evaluate(run: Run | Path | str, *, cache: Path | str = "cache") -> list[Evaluation]:
    """Score the test side of every split of a run, once, and write the results into its folder.

    Args:
        run: a run or its folder.
        cache: folder of images tables and feature stores, or its URL.

    Returns:
        An evaluation for each data set and target, the run's own first.

    Raises:
        AgiqaError: no such run, a published one, or its data sets' splits or vectors are not those
            of the fit.
    """
    folder = run.folder if isinstance(run, Run) else Path(run)
    run = load_run(folder)
    require_unpublished(run)
    whole: list[Evaluation] = []
    for number, about in enumerate([run.provenance, *run.provenance["others"]]):
        data = _load_as_fitted(run, about, cache)
        leaks = about["leaks"]
        test_set = TestSet(
            data, data.sides, data.columns, data.protocol, number, leaks, learnt=True
        )
        results = evaluate_on(run, test_set)
        write_all_results(folder / DATASETS / data.name if number else folder, results)
        whole += results
    names = list(run.provenance["targets"])
    (folder / TARGETS).mkdir(exist_ok=True)  # an output of DVC's, which likes neither optional
    write_json(folder / TARGETS / LIST, {"run": names[0], "here": names[1:]})  # nor empty ones
    return whole


def _load_as_fitted(run: Run, about: Mapping[str, Any], cache: Path | str) -> FitData:
    """Load a data set of the run, which `about` describes, as it was trained on.

    Raises:
        AgiqaError: its splits changed: what was trained on could now be tested.
    """
    target, protocol = ",".join(about["targets"]), str(about["protocol"])
    settings = replace(run.params.fit, target=target, protocol=protocol)
    data = load_fit_data(str(about["dataset"]), cache, replace(run.params, fit=settings))
    made = about.get("splits_sha256")  # runs of earlier versions have none
    if made and made != data.digest:
        raise AgiqaError(
            f"{run.folder} was fitted on other {protocol} splits (sha256 {made[:12]}) than the "
            f"split file has now ({data.digest[:12]}): run `agiqa fit` again."
        )
    if about.get("scores_sha256", data.scores_sha256) != data.scores_sha256:
        log.warning(
            "%s was fitted on other scores than '%s' has now, and is measured on those: run "
            "`agiqa fit` again",
            run.folder,
            data.name,
        )
    return data


def evaluate_on(run: Run, test_set: TestSet) -> list[Evaluation]:
    """Score the test sides with every model of the run; results for each target there.

    Raises:
        AgiqaError: features made in another way than the run's, or other splits.
    """
    name, sides, features = test_set.data.name, test_set.sides, test_set.data.features
    require_width(run.ensemble, features, name)
    require_same_stores(run.provenance["stores"], features.stores)
    if list(sides) != list(run.provenance["seeds"]):
        raise AgiqaError(
            f"The run was fitted on splits {run.provenance['seeds']}, the split file of '{name}' "
            f"holds {list(sides)}: run `agiqa fit` again."
        )
    scores = {
        (model, seed): score
        for number, (seed, side) in enumerate(sides.items())
        for model, score in score_split(
            run.ensemble, features, number, side["test"], test_set.scale
        ).items()
    }
    results, extras = [], extra_models(run.params)
    for number, column in enumerate(test_set.columns):
        if column is None:
            continue
        predictions = _predictions(test_set, scores, number, column)
        mixture = predictions[predictions["model"] == MIXTURE]
        for extra, batch in extras.items():  # the same on some of the images
            picked = [
                part.iloc[whole_batches(len(part), batch)].assign(model=extra)
                for _, part in mixture.groupby("seed", sort=False)
            ]
            predictions = pd.concat([predictions, *picked], ignore_index=True)
        epochs = gate_epochs(run.ensemble, number)
        gating = describe_gating(predictions, epochs, test_set.leaks) if epochs else None
        figures = measure(predictions, list(extras), run.provenance["experts"], gating)
        metrics = _describe(run, test_set, number, column, predictions) | figures
        metrics |= best_possible(test_set.data.table, column, sides)
        results.append(Evaluation(predictions, metrics))
    return results


def _predictions(
    test_set: TestSet, scores: Mapping[tuple[str, int], SplitScores], number: int, column: str
) -> pd.DataFrame:
    """One row for each model, split and tested image, of the run's target at `number`.

    `scores` are by model and seed; the table calls the target `column`.
    """
    parts: list[pd.DataFrame] = []
    frame = test_set.data.table.frame
    described, mos = frame[["path", "image_id", "generator", "group"]], frame[column].to_numpy()
    for (model, seed), (score, gate, reach) in scores.items():
        test = test_set.sides[seed]["test"]
        part = described.iloc[test].assign(
            model=model, seed=seed, mos=mos[test], score=score[:, number]
        )
        if gate is not None:
            for index, expert in enumerate(test_set.data.features.experts):
                part[GATE + expert] = gate[:, index, number]
        if reach is not None and np.isfinite(reach[number]) and test_set.learnt:
            part[LOW] = part["score"] - reach[number]
            part[HIGH] = part["score"] + reach[number]
        parts.append(part[np.isfinite(mos[test])])
    first = ["model", "seed"]
    whole = pd.concat(parts, ignore_index=True)
    return whole[first + [name for name in whole if name not in first]]


def _describe(
    run: Run, test_set: TestSet, number: int, column: str, predictions: pd.DataFrame
) -> dict[str, Any]:
    """What metrics.json says of the run's target at `number`, but for the figures."""
    table = test_set.data.table
    mos = table.frame[column]
    return {
        "preset": run.params.fit.preset,
        "dataset": table.name,
        "trained_on": run.provenance["trained_on"],
        "synthetic": table.synthetic,
        "target": column,
        "mos": {"low": float(mos.min()), "high": float(mos.max())},
        "protocol": test_set.protocol,
        "splits": len(test_set.sides),
        "splits_sha256": test_set.data.digest,
        "leaks": [dict(leak) for leak in test_set.leaks],
        "outside_scale": _outside_scale(run, table, number, column, predictions),
    }


def _outside_scale(
    run: Run, table: ImagesTable, number: int, column: str, predictions: pd.DataFrame
) -> dict[str, Any] | None:
    """How many of the mixture's scores lie beyond the MOS that the scale was learnt from.

    Of another data set's images the scale is the run's own, known for its first target alone.
    """
    low, high = float(table.frame[column].min()), float(table.frame[column].max())
    if table.name not in run.provenance["trained_on"]:
        if number:
            return None
        low, high = (float(run.provenance["mos"][end]) for end in ("low", "high"))
    scores = predictions.loc[predictions["model"] == MIXTURE, "score"]
    below, above = int((scores < low).sum()), int((scores > high).sum())
    return {"low": low, "high": high, "scores": len(scores), "below": below, "above": above}
