"""How well a published scorer, which knows none of the ratings, agrees with them.

    python benchmarks/zero_shot.py agiqa-3k --scorer vqascore --target alignment
    python benchmarks/zero_shot.py agiqa-3k --scorer q-align --target quality --images 300

On a prepared data set, all of it or images drawn at random; answers stay in the ledger, so that a
second run, or one after a kill, asks only what is missing. Intervals draw whole prompts.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from agiqa.data.datasets.table import find_target, read_table
from agiqa.data.metrics import all_metrics
from agiqa.data.statistics.intervals import draw, model_intervals
from agiqa.runs.create_scorer import create_scorer


def main() -> None:
    """Print the figures as JSON, with the command that made them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_set")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--scorer", required=True, help="a name, or a YAML file")
    parser.add_argument("--target", required=True, help="the column of ratings")
    parser.add_argument("--images", type=int, help="so many, drawn at random; default: all")
    parser.add_argument("--seed", type=int, default=100)
    given = parser.parse_args()
    table = read_table(given.cache / given.data_set)
    chosen = np.arange(len(table.frame))
    if given.images is not None:
        drawn_rows = np.random.default_rng(given.seed).choice(len(chosen), given.images, False)
        chosen = np.asarray(drawn_rows)
    frame = table.frame.iloc[chosen]
    files = [table.paths()[row] for row in chosen]
    scorer = create_scorer(given.scorer)
    prompts = list(frame["prompt"]) if scorer.asks_image_prompt else None
    scores = np.array([score.score for score in scorer(files, prompts)])
    mos = frame[find_target(table, given.target)].to_numpy(float)
    side = frame[["path", "group"]].assign(mos=mos, score=scores)
    figures = all_metrics(side["mos"], side["score"])
    bounds = model_intervals({"it": [side]}, {"it": [figures]}, draw([side]))["it"].median
    wanted = ("srcc", "krcc", "plcc_logistic")
    result = {
        "command": " ".join(["python benchmarks/zero_shot.py", *sys.argv[1:]]),
        "images": len(side),
        "prompts": int(side["group"].nunique()),
        "score": {"mean": float(scores.mean()), "deviation": float(scores.std())},
    } | {name: {"value": figures[name], "interval": list(bounds[name])} for name in wanted}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
