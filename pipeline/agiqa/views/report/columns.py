"""What the page knows of every image, as columns: the gallery, the dialog and the points read it.

One row an image, in the order of its path. What repeats (prompts, generators) is written once and
pointed to. Runs side by side tested the same images, so they differ in scores and gates alone.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from agiqa.core.errors import printable
from agiqa.data.datasets.table import ImagesTable
from agiqa.runs.predictions import GATE
from agiqa.views.report.figures.style import rounded
from agiqa.views.report.results import Results


def image_columns(
    runs: Sequence[Results], images: Sequence[pd.DataFrame], table: ImagesTable
) -> dict[str, Any]:
    """Columns for JSON.

    Args:
        runs: the runs of the page.
        images: of `average_images`, for each run.
        table: the data set, for prompts.
    """
    first = images[0]
    known = table.frame.set_index("path")["prompt"]
    prompts = [str(known.get(path, "")) for path in first["path"]]
    prompt_of, prompt_names = _coded(prompts)
    group_of, group_names = _coded([str(each) for each in first["group"]])
    generator_of, generator_names = _coded([str(each) for each in first["generator"]])
    return {
        "path": [printable(path) for path in first["path"]],
        "prompt": prompt_of,
        "prompts": prompt_names,
        "group": group_of,
        "groups": group_names,
        "generator": generator_of,
        "generators": generator_names,
        "mos": rounded(first["mos"], 3),
        "splits": [int(count) for count in first["splits"]],
        "runs": [
            _of_run(run, each.set_index("path").reindex(first["path"]))
            for run, each in zip(runs, images, strict=True)
        ],
    }


def _of_run(run: Results, rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "name": run.name,
        "score": rounded(rows["score"], 3),
        "experts": [expert.replace("_", " ") for expert in run.experts],
        "gate": [rounded(rows[GATE + expert], 3) for expert in run.experts],
    }


def _coded(values: Sequence[str]) -> tuple[list[int], list[str]]:
    """Places in a list of the different values, and that list."""
    codes, names = pd.factorize(pd.Series(values, dtype=object))
    return [int(code) for code in codes], [str(name) for name in names]
