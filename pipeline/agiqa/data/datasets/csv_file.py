"""The user's own labelled images: any CSV with a column of image paths and columns of scores.

Paths are relative to `root` (by default the CSV's folder); an absolute path is accepted if it lies
inside. Every row needs a finite number in each score column.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from agiqa.core.errors import AgiqaError, quoted, some
from agiqa.core.params import Source
from agiqa.core.run_folders import target_name
from agiqa.data.datasets.groups import prompt_key
from agiqa.data.datasets.table import (
    DEVIATION,
    RATERS,
    RESERVED,
    ImagesTable,
    build_table,
    inner_path,
)
from agiqa.data.datasets.text_table import numbers, read_text_csv

log = logging.getLogger(__name__)


def prepare(
    source: Source, name: str = "", *, skip_bad: bool = False, workers: int | None = None
) -> ImagesTable:
    """Read a CSV of the user's own, in UTF-8; a .tsv is read with tabs.

    Paths may have Windows' backslashes; groups are names, taken as they are. The data set is called
    as the CSV, without its suffix, unless it has a name; `skip_bad` leaves bad images out.

    Raises:
        AgiqaError: says what of the file or its columns cannot be; or an image cannot be used.
    """
    if not source.score_columns:
        raise AgiqaError("A CSV needs --score-column (repeatable) with the columns of its scores.")
    csv = Path(source.path).expanduser()
    optional = (source.prompt_column, source.group_column, source.generator_column)
    named = [*source.deviation_columns, *optional, source.raters_column]
    columns = [source.image_column, *source.score_columns, *filter(None, named)]
    labels = read_text_csv(csv, columns)
    targets = _targets(source.score_columns, csv)
    if labels.empty:
        raise AgiqaError(f"{csv}: expected one row an image, found only the header")
    root = Path(source.root) if source.root else csv.parent
    if not root.is_dir():
        raise AgiqaError(f"{root}: expected the folder of the images, found none")
    rows = pd.DataFrame({"path": image_paths(labels[source.image_column], root, csv)})
    for own_column, column in zip(("prompt", "group", "generator"), optional, strict=True):
        if column and (own_column != "group" or column != source.prompt_column):
            rows[own_column] = labels[column]
    if "group" in rows:
        _warn_of_near_names(rows["group"], source.group_column, csv)
    for target, column in targets.items():
        rows[target] = numbers(labels, column, source.image_column, csv)
    turned, scale = _on_scale(rows, targets, source, csv)
    _add_raters(rows, labels, list(targets), source, csv)
    ends = ""
    if scale and turned:
        ends = f", {' and '.join(turned)} turned round on {scale[0]:g}…{scale[1]:g}"
    return build_table(
        name or csv.stem,
        root,
        rows,
        list(targets),
        licence="the owner's own",
        source=f"{csv.name}{ends}",
        scale=scale,
        skip_bad=skip_bad,
        workers=workers,
    )


def _on_scale(
    rows: pd.DataFrame, targets: Mapping[str, str], source: Source, csv: Path
) -> tuple[list[str], tuple[float, float] | None]:
    """Hold scores against the scale, and turn those round within it of which lower is better."""
    if unknown := sorted(set(source.lower_is_better) - set(targets.values())):
        raise AgiqaError(
            f"{csv}: lower is better in {some(unknown)}: expected score columns "
            f"({some(list(targets.values()))}): name one of these"
        )
    turned = [target for target, column in targets.items() if column in source.lower_is_better]
    scale = source.scale
    if not scale:
        if turned:
            raise AgiqaError(
                f"{csv}: scores of which the lower is better are turned round within their scale: "
                "give its ends, such as --scale 0 100"
            )
        return turned, None
    if len(scale) != 2 or not math.isfinite(sum(scale)) or scale[0] >= scale[1]:
        raise AgiqaError(f"scale: expected two ends, the lower first, found {list(scale)}")
    low, high = scale
    for target in targets:
        if len(wrong := rows[(rows[target] < low) | (rows[target] > high)]):
            raise AgiqaError(
                f"{csv}: {target} must be on the scale {low:g} to {high:g}; found "
                f"{_values(wrong, target)}"
            )
        if target in turned:
            rows[target] = low + high - rows[target]
    return turned, (low, high)


def _targets(columns: Sequence[str], csv: Path) -> dict[str, str]:
    """Map targets' names to the score columns: the same, without space around them."""
    targets = {target_name(column.strip(), str(csv)): column for column in columns}
    if reserved := [name for name in targets if name in RESERVED]:
        raise AgiqaError(
            f"a score column cannot be called {some(reserved)}, which the images table uses "
            "itself: rename it in the CSV"
        )
    if len({name.casefold() for name in targets}) < len(columns):  # folders of a run go by them
        raise AgiqaError(f"a score column is named twice: {', '.join(columns)}")
    return targets


def _warn_of_near_names(groups: "pd.Series[str]", column: str, csv: Path) -> None:
    """Log pairs of groups that would be one if they were prompts."""
    first: dict[str, str] = {}  # by the key that prompts are compared by
    pairs = []
    for group in dict.fromkeys(groups):
        if (earlier := first.setdefault(prompt_key(group), group)) != group:
            pairs.append(f"{earlier!r} and {group!r}")
    if pairs:
        log.warning(
            "%s: column %s holds names that differ in case, white space or unseen characters "
            "alone (%s); they stay groups of their own: spell them alike if they are one",
            csv,
            column,
            some(pairs, 2),
        )


def _add_raters(
    rows: pd.DataFrame, labels: pd.DataFrame, targets: Sequence[str], source: Source, csv: Path
) -> None:
    """Add the raters' deviations, at least 0, and the numbers of ratings, at least 1."""
    columns = source.deviation_columns
    if columns and len(columns) != len(targets):
        raise AgiqaError(
            f"expected a column of deviations for each of {len(targets)} score columns, in their "
            f"order, found {len(columns)} ({some(columns)}): name as many"
        )
    deviations = [(f"{targets[index]}{DEVIATION}", name, 0) for index, name in enumerate(columns)]
    raters = [(f"{target}{RATERS}", source.raters_column, 1) for target in targets]
    added = [*deviations, *(raters if source.raters_column else ())]
    for own_column, column, _ in added:
        rows[own_column] = numbers(labels, column, source.image_column, csv)
    if reserved := sorted({own_column for own_column, *_ in added} & set(targets)):
        raise AgiqaError(
            f"a score column cannot be called {some(reserved)}, as the table calls "
            "deviations and numbers of ratings: rename it in the CSV"
        )
    for own_column, _, least in added:
        if len(wrong := rows[rows[own_column] < least]):
            raise AgiqaError(
                f"{csv}: {own_column} must be at least {least}; found {_values(wrong, own_column)}"
            )


def _values(rows: pd.DataFrame, column: str) -> str:
    """Name some images with what the column says of them."""
    pairs = zip(rows["path"], rows[column], strict=True)
    return some([f"{quoted(path)}: {number:g}" for path, number in pairs])


def image_paths(named: "pd.Series[str]", root: Path, csv: Path) -> list[str]:
    """Make paths relative to the root of the images that a column of the CSV names."""
    roots = (root.absolute(), root.resolve())

    def relative(path: str) -> str:
        above = (folder for folder in roots if Path(path).is_relative_to(folder))
        folder = next(above, None)
        return path if folder is None else Path(path).relative_to(folder).as_posix()

    return [inner_path(relative(path), str(csv)) for path in named]
