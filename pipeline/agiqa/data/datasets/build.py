"""From a list of image files and their labels to an images table, checked before it exists.

Every data set ends here: the files are decoded in full and hashed, in threads, and only when that
is done is there a table to write. Bad images stop everything, or are left out with `skip_bad`.
"""

import logging
import re
import unicodedata
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pandas as pd

from agiqa.core.errors import AgiqaError, printable, quoted, some
from agiqa.core.progress import track
from agiqa.data.datasets.groups import prompt_groups
from agiqa.data.datasets.table import DEVIATION, RATERS, RESERVED, ImagesTable, Target, inner_path
from agiqa.data.datasets.text_table import refuse_duplicates
from agiqa.data.images import BadImage, BadImagesError, checked_ids

logger = logging.getLogger(__name__)

_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


def build_table(
    name: str,
    root: Path,
    rows: pd.DataFrame,
    targets: Sequence[str] = (),
    *,
    licence: str,
    source: str,
    scale: tuple[float, float] | None = None,
    synthetic: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
) -> ImagesTable:
    """Check and hash the images of `rows`, and make the table.

    Rows have the columns path (below the root), prompt, group, generator ("" where they are absent;
    the group is the prompt's), and the targets' as floats (NaN: the data set keeps it to itself);
    beside a target, where they are known, TARGET_sd with the raters' standard deviations and
    TARGET_raters with the number of ratings; `set` where there are official sides. `licence` is the
    owners' word for it, `source` says to people where the data came from, `scale` are the ends of
    the raters' scale, the same for all targets, and `synthetic` data the project made itself.
    `skip_bad` leaves bad images out (they are in the table's `skipped`) instead of stopping.

    Raises:
        BadImagesError: an image cannot be used and `skip_bad` is off, or none can.
        AgiqaError: an image stands twice, a path leaves the folder, or a target has no score.
    """
    root, rows = root.resolve(), rows.reset_index(drop=True)
    spelled = [as_spelled(root, inner_path(path, name), name) for path in rows["path"]]
    rows["path"] = pd.Series(spelled, dtype=object)
    refuse_duplicates(rows["path"], source)
    rows, bad = _checked(name, root, rows, skip_bad, workers)
    for column in ("prompt", "generator"):
        rows[column] = rows.get(column, "")
    if "group" not in rows:
        rows["group"] = prompt_groups(rows["prompt"])
    if empty := [target for target in targets if rows[target].isna().all()]:
        raise AgiqaError(f"no image has a score in {some(empty)}: is this the right folder?")
    others = {str(column) for column in rows} - set(targets)
    observed = tuple(_observed(rows[target], scale, others) for target in targets)
    scores = [*targets, *(t.deviation for t in observed), *(t.raters for t in observed)]
    scores = [column for column in scores if column]
    texts = [column for column in RESERVED if column in rows]
    frame = rows[[*texts, *scores]].astype(dict.fromkeys(scores, float))
    return ImagesTable(name, root, frame, observed, synthetic, licence, source, bad)


def _observed(
    scores: "pd.Series[float]", scale: tuple[float, float] | None, others: Container[str]
) -> Target:
    """Describe a target with the range in its column, images without a score left out."""
    name = str(scores.name)
    deviation, raters = (
        f"{name}{end}" if f"{name}{end}" in others else "" for end in (DEVIATION, RATERS)
    )
    return Target(name, float(scores.min()), float(scores.max()), scale, deviation, raters)


def _checked(
    name: str, root: Path, rows: pd.DataFrame, skip_bad: bool, workers: int | None
) -> tuple[pd.DataFrame, tuple[BadImage, ...]]:
    """Decode and hash the images: the rows that stay, with their `image_id`, and the bad ones."""
    files = [root / path for path in rows["path"]]
    ids = track(checked_ids(files, workers), "Images", total=len(files))
    checked: list[str | BadImage] = []
    for path, image in zip(rows["path"], ids, strict=True):
        if isinstance(image, BadImage):
            checked.append(BadImage(printable(path), image.reason))
        elif re.search("[\ud800-\udfff]", path):
            checked.append(BadImage(printable(path), "has a name that is not UTF-8: rename it"))
        else:
            checked.append(image)
    bad = tuple(image for image in checked if isinstance(image, BadImage))
    total = len(rows)
    if bad and (not skip_bad or len(bad) == total):
        advice = "Nothing would be left; is this the right folder?"
        if not skip_bad:
            advice = "Repair them, or leave them out with --skip-bad"
        named = some([f"{quoted(image.path)} {image.reason}" for image in bad])
        count = f"{len(bad)} of {total} images cannot be used"
        raise BadImagesError(f"{count}: {named}. {advice}", bad)
    if bad:
        rows = rows[[isinstance(image, str) for image in checked]].reset_index(drop=True)
        logger.warning("%s: left out %d bad images of %d", name, len(bad), total)
    rows["path"] = rows["path"].astype(str)
    rows["image_id"] = [image for image in checked if isinstance(image, str)]
    duplicates = int(rows["image_id"].duplicated().sum())
    if duplicates:
        logger.info("%s: %d images are byte-identical to an earlier one", name, duplicates)
    return rows, bad


def as_spelled(root: Path, path: str, name: str) -> str:
    """Spell the path as the file system does, where the two differ in spelling alone.

    Archives made on macOS hold decomposed letters (NFD), tables made on Windows backslashes.
    """
    if path.isascii() and "\\" not in path:
        return path
    slashes = inner_path(path.replace("\\", "/"), name)
    spellings = [path, slashes, *(unicodedata.normalize(form, slashes) for form in _FORMS)]
    with suppress(OSError):  # such as a name that is too long
        return next((spelling for spelling in spellings if (root / spelling).exists()), path)
    return path
