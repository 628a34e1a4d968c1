"""The user's own labelled images: any CSV with a column of image paths and columns of scores.

Paths are relative to `root` (by default the CSV's folder); an absolute path is accepted if it lies
inside. Every row needs a finite number in each score column.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from agiqa.datasets.build import build_table
from agiqa.datasets.groups import near_names, prompt_groups
from agiqa.datasets.labels import numbers, read_text_csv, refuse_duplicates, require_columns
from agiqa.datasets.table import SET_COLUMN, TEXT_COLUMNS, ImagesTable, inner_path
from agiqa.errors import AgiqaError, some

log = logging.getLogger(__name__)


def prepare(
    csv: Path,
    image_column: str,
    score_columns: Sequence[str],
    *,
    prompt_column: str | None = None,
    group_column: str | None = None,
    generator_column: str | None = None,
    root: Path | None = None,
    name: str | None = None,
    skip_bad: bool = False,
    workers: int | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> ImagesTable:
    """Read a CSV of the user's own.

    Args:
        csv: the file, UTF-8; a .tsv is read with tabs.
        image_column: holds the images' paths.
        score_columns: hold the scores, higher is better; each becomes a target of that name.
        prompt_column: holds the prompts; without a group column, a prompt is a group too.
        group_column: says which images must stay on one side of a split; names, taken as they are.
        generator_column: says which generator made the image.
        root: the folder that the paths are relative to; by default the CSV's.
        name: of the data set; by default the CSV's, without its suffix.
        skip_bad: leave bad images out instead of stopping.
        workers: threads; None takes a few more than there are cores.
        on_progress: called as (done, total) after each image.
    """
    labels = read_text_csv(csv)
    named = [c for c in (prompt_column, group_column, generator_column) if c is not None]
    require_columns(labels, [image_column, *score_columns, *named], csv)
    _check_scores(score_columns)
    if labels.empty:
        raise AgiqaError(f"{csv}: expected one row an image, found only the header")
    root = csv.parent if root is None else root
    if not root.is_dir():
        raise AgiqaError(f"{root}: expected the folder of the images, found none")
    rows = pd.DataFrame({"path": [_inside(p, root, csv) for p in labels[image_column]]})
    refuse_duplicates(rows["path"], csv)
    rows["prompt"] = labels[prompt_column] if prompt_column else ""
    if group_column in (None, prompt_column):
        rows["group"] = prompt_groups(rows["prompt"])
    else:
        rows["group"] = labels[group_column]
        if alike := near_names(rows["group"]):
            log.warning(
                "%s: column %s holds names that differ in case, white space or unseen characters "
                "alone (%s); they stay groups of their own: spell them alike if they are one",
                csv,
                group_column,
                some([f"{one!r} and {other!r}" for one, other in alike], 2),
            )
    rows["generator"] = labels[generator_column] if generator_column else ""
    for column in score_columns:
        rows[column] = numbers(labels, column, image_column, csv)
    return build_table(
        name or csv.stem,
        root,
        rows,
        score_columns,
        licence="the owner's own",
        source=csv.name,
        skip_bad=skip_bad,
        workers=workers,
        on_progress=on_progress,
    )


def _check_scores(columns: Sequence[str]) -> None:
    if not columns:
        raise AgiqaError("expected at least one score column, found none: name one, or use folder")
    taken = [c for c in columns if c in (*TEXT_COLUMNS, SET_COLUMN)]
    if taken:
        raise AgiqaError(
            f"a score column cannot be called {some(taken)}, which the images table uses itself: "
            "rename it in the CSV"
        )
    if len(set(columns)) < len(columns):
        raise AgiqaError(f"a score column is named twice: {', '.join(columns)}")


def _inside(path: str, root: Path, csv: Path) -> str:
    given = Path(path)
    if given.is_absolute():
        for folder in (root.absolute(), root.resolve()):
            if given.is_relative_to(folder):
                return inner_path(given.relative_to(folder).as_posix(), str(csv))
    return inner_path(path, str(csv))
