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
from agiqa.core.names import target_name
from agiqa.data.datasets.build import build_table
from agiqa.data.datasets.groups import near_names, prompt_groups
from agiqa.data.datasets.table import SET_COLUMN, TEXT_COLUMNS, ImagesTable, inner_path
from agiqa.data.datasets.text_table import numbers, read_text_csv, require_columns

log = logging.getLogger(__name__)


def prepare(
    csv: Path,
    image_column: str,
    score_columns: Sequence[str],
    *,
    prompt_column: str | None = None,
    group_column: str | None = None,
    generator_column: str | None = None,
    deviation_columns: Sequence[str] = (),
    raters_column: str | None = None,
    scale: Sequence[float] = (),
    lower_is_better: Sequence[str] = (),
    root: Path | None = None,
    name: str | None = None,
    skip_bad: bool = False,
    workers: int | None = None,
) -> ImagesTable:
    """Read a CSV of the user's own.

    Args:
        csv: the file, UTF-8; a .tsv is read with tabs. Paths may have Windows' backslashes.
        image_column: holds the images' paths.
        score_columns: hold the scores; each becomes a target of that name.
        prompt_column: holds the prompts; without a group column, a prompt is a group too.
        group_column: says which images must stay on one side of a split; names, taken as they are.
        generator_column: says which generator made the image.
        deviation_columns: hold the raters' standard deviations, one for each score column.
        raters_column: holds the number of ratings behind an image's scores.
        scale: the two ends of the raters' scale, the same for all scores, where they are known.
        lower_is_better: of the score columns those to turn round within the scale (a DMOS), since
            in a table higher is better.
        root: the folder that the paths are relative to; by default the CSV's.
        name: of the data set; by default the CSV's, without its suffix.
        skip_bad: leave bad images out instead of stopping.
        workers: threads; None takes a few more than there are cores.
    """
    labels = read_text_csv(csv)
    named = [c for c in (prompt_column, group_column, generator_column, raters_column) if c]
    require_columns(labels, [image_column, *score_columns, *deviation_columns, *named], csv)
    targets = _targets(score_columns, csv)
    if labels.empty:
        raise AgiqaError(f"{csv}: expected one row an image, found only the header")
    root = csv.parent if root is None else root
    if not root.is_dir():
        raise AgiqaError(f"{root}: expected the folder of the images, found none")
    rows = pd.DataFrame({"path": image_paths(labels[image_column], root, csv)})
    rows["prompt"] = labels[prompt_column] if prompt_column else ""
    rows["group"] = prompt_groups(rows["prompt"])
    if group_column not in (None, prompt_column):
        rows["group"] = labels[group_column]
        _warn_of_near_names(rows["group"], str(group_column), csv)
    rows["generator"] = labels[generator_column] if generator_column else ""
    for target, column in targets.items():
        rows[target] = numbers(labels, column, image_column, csv)
    if unknown := sorted(set(lower_is_better) - set(targets.values())):
        raise AgiqaError(
            f"{csv}: lower is better in {some(unknown)}: expected score columns "
            f"({some(list(targets.values()))}): name one of these"
        )
    turned = [target for target, column in targets.items() if column in lower_is_better]
    ends = _on_scale(rows, list(targets), scale, turned, csv)
    deviations = _deviations(list(targets), deviation_columns)
    for column, own_column in zip(deviation_columns, deviations.values(), strict=True):
        rows[own_column] = numbers(labels, column, image_column, csv)
    raters = {target: f"{target}_raters" for target in targets if raters_column}
    for own_column in raters.values():
        rows[own_column] = numbers(labels, str(raters_column), image_column, csv)
    if reserved := {*deviations.values(), *raters.values()} & set(targets):
        raise AgiqaError(
            f"a score column cannot be called {some(sorted(reserved))}, as the table calls "
            "deviations and numbers of ratings: rename it in the CSV"
        )
    least = dict.fromkeys(deviations.values(), 0) | dict.fromkeys(raters.values(), 1)
    _require_least(rows, least, csv)
    return build_table(
        name or csv.stem,
        root,
        rows,
        list(targets),
        licence="the owner's own",
        source=f"{csv.name}, {' and '.join(turned)} turned round on {scale[0]:g}…{scale[1]:g}"
        if turned
        else csv.name,
        scale=ends,
        deviations=deviations,
        raters=raters,
        skip_bad=skip_bad,
        workers=workers,
    )


def _on_scale(
    rows: pd.DataFrame, targets: list[str], scale: Sequence[float], turned: list[str], csv: Path
) -> tuple[float, float] | None:
    """Hold scores against the scale, and turn those round within it of which lower is better."""
    if not scale:
        if turned:
            raise AgiqaError(
                f"{csv}: scores of which the lower is better are turned round within their scale: "
                "give its ends, such as --scale 0 100"
            )
        return None
    if len(scale) != 2 or not math.isfinite(sum(scale)) or scale[0] >= scale[1]:
        raise AgiqaError(f"scale: expected two ends, the lower first, found {list(scale)}")
    low, high = scale
    for target in targets:
        if len(wrong := rows[(rows[target] < low) | (rows[target] > high)]):
            pairs = zip(wrong["path"], wrong[target], strict=True)
            named = [f"{quoted(path)}: {number:g}" for path, number in pairs]
            raise AgiqaError(
                f"{csv}: {target} must be on the scale {low:g} to {high:g}; found {some(named)}"
            )
        if target in turned:
            rows[target] = low + high - rows[target]
    return low, high


def _targets(columns: Sequence[str], csv: Path) -> dict[str, str]:
    """Map targets' names to the score columns: the same, without space around them."""
    if not columns:
        raise AgiqaError("expected at least one score column, found none: name one, or use folder")
    targets = {target_name(column.strip(), str(csv)): column for column in columns}
    if reserved := [name for name in targets if name in (*TEXT_COLUMNS, SET_COLUMN)]:
        raise AgiqaError(
            f"a score column cannot be called {some(reserved)}, which the images table uses "
            "itself: rename it in the CSV"
        )
    if len({name.casefold() for name in targets}) < len(columns):  # folders of a run go by them
        raise AgiqaError(f"a score column is named twice: {', '.join(columns)}")
    return targets


def _warn_of_near_names(groups: "pd.Series[str]", column: str, csv: Path) -> None:
    """Log pairs of groups that would be one if they were prompts."""
    if pairs := near_names(groups):
        log.warning(
            "%s: column %s holds names that differ in case, white space or unseen characters "
            "alone (%s); they stay groups of their own: spell them alike if they are one",
            csv,
            column,
            some([f"{first!r} and {second!r}" for first, second in pairs], 2),
        )


def _deviations(targets: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Name by target the table's column of its raters' deviations."""
    if columns and len(columns) != len(targets):
        raise AgiqaError(
            f"expected a column of deviations for each of {len(targets)} score columns, in their "
            f"order, found {len(columns)} ({some(columns)}): name as many"
        )
    return {target: f"{target}_sd" for target in targets if columns}


def _require_least(rows: pd.DataFrame, least: Mapping[str, int], csv: Path) -> None:
    """Refuse deviations below 0 and numbers of ratings below 1."""
    for column in [column for column in least if column in rows]:
        if len(wrong := rows[rows[column] < least[column]]):
            pairs = zip(wrong["path"], wrong[column], strict=True)
            named = [f"{quoted(path)}: {number:g}" for path, number in pairs]
            raise AgiqaError(
                f"{csv}: {column} must be at least {least[column]}; found {some(named)}"
            )


def image_paths(named: "pd.Series[str]", root: Path, csv: Path) -> list[str]:
    """Make paths relative to the root of the images that a column of the CSV names."""
    roots = (root.absolute(), root.resolve())

    def relative(path: str) -> str:
        above = (folder for folder in roots if Path(path).is_relative_to(folder))
        folder = next(above, None)
        return path if folder is None else Path(path).relative_to(folder).as_posix()

    return [inner_path(relative(path), str(csv)) for path in named]
