"""A published scorer on the test sides of a data set: what a model reaches that was not fitted.

Nothing is trained, so splits only say which images are measured together: the figures stand in the
same columns as those of runs, and are compared with them image by image.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.json_text import write_json
from agiqa.core.model_names import ZERO_SHOT
from agiqa.core.params import Fit
from agiqa.core.run_folders import PROVENANCE, require_free_run
from agiqa.runs.files import Evaluation, write_all_results
from agiqa.runs.lmm_scorer import LmmScorer
from agiqa.runs.measure import best_possible, measure
from agiqa.runs.provenance import describe_data
from agiqa.runs.records import LAYOUT
from agiqa.runs.scorer_file import read_scorer
from agiqa.stage2.fit_data import RatedData, load_rated_data


def evaluate_scorer(
    name: str,
    dataset: str,
    *,
    target: str = "",
    protocol: str = "auto",
    out: Path | None = None,
    replace: bool = False,
    cache: Path = Path("cache"),
    runs: Path = Path("runs"),
    remote_code: str = "",
) -> Evaluation:
    """Measure a published scorer on the test side of every split, and write a folder of results.

    Args:
        name: of the scorer, or its YAML file.
        dataset: a prepared data set.
        target: a column of its scores; by default what the scorer says that it predicts.
        protocol: whose test sides are measured.
        out: the folder; by default `runs/DATASET/SCORER/PROTOCOL`.
        replace: overwrite results in that folder.
        cache: folder of images tables.
        runs: the folder of runs.
        remote_code: `MODEL@DIGEST`, as `create_scorer` takes it.

    Raises:
        AgiqaError: no such scorer, data set, target or split file, a run instead of a scorer,
            results in the folder, or an image that the model does not take.
    """
    if (Path(name) / PROVENANCE).is_file():
        raise AgiqaError(
            f"{printable(name)}: expected a published scorer, found a run, which knows scores of "
            f"its own data sets: `agiqa cross {printable(name)} --on {printable(dataset)}`."
        )
    if (Path(dataset) / PROVENANCE).is_file():
        raise AgiqaError(
            f"{printable(dataset)}: expected a data set's name, found a run: a published scorer is "
            "measured on a data set."
        )
    asked = read_scorer(name)
    settings = Fit(target=target or asked.target, protocol=protocol)
    rated = load_rated_data(cache / dataset, settings)
    folder = out or runs / dataset / asked.name / rated.protocol
    require_free_run(folder, replace)
    scorer = LmmScorer(asked, remote_code=remote_code)  # it may fetch gigabytes, so it comes last
    predictions = _predictions(scorer, rated)
    provenance = describe_data(rated) | scorer.provenance_of_results
    results = Evaluation(predictions, _metrics(rated, provenance, predictions))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PROVENANCE, {"format": "agiqa-scorer", "layout": LAYOUT, **provenance})
    write_all_results(folder, [results])
    return results


def _predictions(scorer: LmmScorer, rated: RatedData) -> pd.DataFrame:
    """Score each tested image once; a row for each split that tests it."""
    frame, (column, *_) = rated.table.frame, rated.columns
    tests = {seed: side["test"] for seed, side in rated.sides.items()}
    tested = np.unique(np.concatenate(list(tests.values())))
    files = [rated.table.paths()[row] for row in tested]
    prompts = [str(text) for text in frame["prompt"].iloc[tested]]
    if scorer.asks_image_prompt and not all(prompts):
        raise AgiqaError(
            f"'{scorer.label}' asks about the prompt that an image was generated from, which "
            f"'{rated.name}' lacks for {prompts.count('')} images: prepare it with --prompt-column."
        )
    scores = scorer(files, prompts if scorer.asks_image_prompt else None)
    means = pd.Series([score.score for score in scores], index=tested)
    described = frame[["path", "image_id", "generator", "group"]].assign(mos=frame[column])
    parts = [
        described.iloc[rows].assign(model=ZERO_SHOT, seed=seed, score=means[rows].to_numpy())
        for seed, rows in tests.items()
    ]
    whole = pd.concat(parts, ignore_index=True)
    return whole[["model", "seed", *described, "score"]]


def _metrics(
    rated: RatedData, provenance: dict[str, Any], predictions: pd.DataFrame
) -> dict[str, Any]:
    """Build everything that metrics.json says of the scorer."""
    kept = ("preset", "dataset", "synthetic", "target", "mos", "protocol", "splits_sha256", "leaks")
    metrics = {
        **{key: provenance[key] for key in kept},
        "trained_on": [],
        "splits": len(rated.sides),
        **measure(predictions, (), (), main=ZERO_SHOT),
    }
    if (ceiling := best_possible(rated.table, rated.columns[0], rated.sides)) is not None:
        metrics["ceiling"] = ceiling
    return metrics
