"""The images table: what every data set becomes, and the only thing the later stages read of it.

One row an image: `image_id` (sha256 of the file's bytes), `path` (relative to `root`, with forward
slashes, spelled as the file system spells it), `prompt`, `group` (images that must stay on one
side of a split, by default those of a prompt, see `groups`; "" for none), `generator`, one column
of floats for each MOS target, and for each target one of the raters' deviations and one of the
number of ratings where those are known. A column `set` ("train", "val", "test", or "") is there
only where the data set has official sides.

A score is empty (NaN once read) where the data set keeps it to itself, as AIGIQA-20K does for its
validation and test sets: such an image has vectors and a prediction, but is in no metric.

On disk it is `images.csv` and `dataset.json` in one folder. `dataset.json` is written last and
holds the CSV's sha256, so a half-written pair is noticed. Where the images are on this machine is
in `root.json` beside them; whoever gets the table without it can fit, not extract.

Every data set's reader ends in `build_table`: its files are decoded in full and hashed, in threads,
and only when that is done is there a table to write.
"""

import hashlib
import logging
import math
import re
import unicodedata
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import pandas as pd

from agiqa.core.errors import AgiqaError, one_line, printable, quoted, some
from agiqa.core.json_text import json_text
from agiqa.core.progress import track
from agiqa.core.regular_files import file_sha256
from agiqa.core.run_folders import target_name
from agiqa.core.trees import read_json
from agiqa.core.whole_files import write_whole
from agiqa.data.datasets.groups import prompt_groups
from agiqa.data.datasets.text_table import numbers, read_text_csv, refuse_duplicates
from agiqa.data.images import BadImage, BadImagesError, checked_ids

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("image_id", "path", "prompt", "group", "generator")
IMAGES_CSV = "images.csv"
DATASET_JSON = "dataset.json"
ROOT_JSON = "root.json"
SET_COLUMN = "set"
RESERVED = (*TEXT_COLUMNS, SET_COLUMN)  # columns that no score may be called
DEVIATION, RATERS = "_sd", "_raters"  # ends of the names of the columns beside a target's
SETS = ("train", "val", "test", "")
# What the field calls a score: others for the same. AGIQA-3K has `align` and AIGCIQA2023 has
# `correspondence` where others say alignment; a column `mos` is quality. A table keeps its authors'
# names; whoever asks for a target may use any, so that a run finds its like in another data set.
SYNONYMS = {"quality": ("mos",), "alignment": ("align", "correspondence")}
DIRECTION = "higher is better"  # of every target, said in dataset.json
_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
LAYOUT = 4  # of the two files; raised when a reader of today could not read them


@dataclass(frozen=True)
class Target:
    """A score the images carry; higher is better."""

    name: str
    low: float  # observed
    high: float  # observed
    scale: tuple[float, float] | None = None  # nominal, where known: the ends of the raters' scale
    deviation: str = ""  # column with the raters' standard deviations, in the score's own units
    raters: str = ""  # column with the number of ratings of each image


@dataclass(frozen=True)
class ImagesTable:
    """A data set after `prepare`."""

    name: str
    root: Path | None  # of the images; None where the table came without them
    frame: pd.DataFrame
    targets: tuple[Target, ...]
    synthetic: bool  # made by the project itself: said wherever its numbers appear
    licence: str
    source: str
    skipped: tuple[BadImage, ...] = ()  # left out by --skip-bad

    def paths(self) -> list[Path]:
        """List the image files, in the table's order; AgiqaError as `folder`."""
        return [self.folder() / path for path in self.frame["path"]]

    def folder(self) -> Path:
        """Give the images' folder; AgiqaError where the table came here without them."""
        if self.root is None:
            raise AgiqaError(
                f"The table of '{self.name}' came without its images; with them on this machine, "
                f"run `agiqa prepare {self.name}` first."
            )
        return self.root


def field_name(target: str) -> str:
    """Give the field's name of a target; its own where it has no other."""
    names = (name for name, synonyms in SYNONYMS.items() if target.lower() in synonyms)
    return next(names, target)


def find_target(table: ImagesTable, asked: str) -> str:
    """Find the table's column for the target `asked`, by its own name or another for it.

    Raises:
        AgiqaError: there is none; says which there are.
    """
    names = [target.name for target in table.targets]
    if asked in names:
        return asked
    alike = [name for name in names if field_name(name) == field_name(asked)]
    if len(alike) == 1:
        return alike[0]
    hint = f"it has {', '.join(names) or 'none, so it can be scored but not fitted'}"
    if len(names) == 1:
        hint = f"give --target {names[0]}"
    raise AgiqaError(f"Data set '{table.name}' has no target '{asked}'; {hint}.")


def inner_path(path: str, prefix: str) -> str:
    """Spell the relative path plainly (`./a//b.png` is `a/b.png`).

    Only the spelling is judged: links inside the folder may point where their owner likes (DVC
    keeps whole data sets as links).

    Raises:
        AgiqaError: it is empty, absolute, or climbs out of the folder; `prefix` begins the message.
    """
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == "..":
            if not parts:
                break
            parts.pop()
        else:
            parts.append(part)
    else:
        absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive != ""
        if parts and not absolute and "\0" not in path:
            return "/".join(parts)
    raise AgiqaError(
        f"{prefix}: the path {printable(path)!r} is not inside the data folder: "
        "give paths relative to it, without leaving it"
    )


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


def write_table(
    table: ImagesTable, folder: Path, sources: Mapping[str, object] | None = None
) -> None:
    """Write `images.csv` and `root.json`, then `dataset.json`, each whole or not at all.

    `sources` is what the table was read from on this machine (`origin`), for `root.json`.
    """
    csv = table.frame.to_csv(index=False, lineterminator="\n").encode("utf-8")
    root, inside = table.folder().resolve(), folder.resolve()
    recorded = root.relative_to(inside).as_posix() if root.is_relative_to(inside) else str(root)
    description = {
        "layout": LAYOUT,
        "name": table.name,
        "images": len(table.frame),
        "images_csv_sha256": hashlib.sha256(csv).hexdigest(),
        "targets": [asdict(target) | {"direction": DIRECTION} for target in table.targets],
        "synthetic": table.synthetic,
        "licence": table.licence,
        "source": table.source,
        "skipped": [asdict(bad) for bad in table.skipped],
    }
    local_record = {"root": recorded} | ({} if sources is None else {"sources": sources})
    write_whole(folder / IMAGES_CSV, csv)
    write_whole(folder / ROOT_JSON, json_text(local_record, ascii_only=True).encode("utf-8"))
    text = json_text(description, indent=2) + "\n"
    write_whole(folder / DATASET_JSON, text.encode("utf-8"))


def read_table(folder: Path | str) -> ImagesTable:
    """Read what `write_table` wrote, and check it.

    Raises:
        AgiqaError: a file or column is missing, the two files do not belong together, a path
            leaves the root or stands twice, a score is neither a number nor empty, or an official
            side is unknown.
    """
    folder = Path(folder)
    csv, advice = folder / IMAGES_CSV, "run `agiqa prepare` again"
    for name in (IMAGES_CSV, DATASET_JSON):
        if not (folder / name).is_file():
            present = some(sorted(p.name for p in folder.glob("*"))) or "nothing"
            known = sorted(path.parent.name for path in folder.parent.glob(f"*/{IMAGES_CSV}"))
            others = f"; prepared there: {some(known)}" if known else ""
            raise AgiqaError(f"{folder}: expected {name}, found {present}: {advice}{others}")
    try:
        table, sha256 = _described(read_json(folder / DATASET_JSON), folder, advice)
        if file_sha256(csv) != sha256:
            raise AgiqaError(f"{csv}: not the file that {DATASET_JSON} was written with: {advice}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgiqaError(
            f"{folder / DATASET_JSON}: damaged ({one_line(error)}): {advice}"
        ) from error
    scores = _score_columns(table.targets)
    frame = read_text_csv(csv, [*TEXT_COLUMNS, *scores])
    for path in frame["path"]:
        inner_path(path, str(csv))
    refuse_duplicates(frame["path"], csv)
    for column in scores:
        frame[column] = numbers(frame, column, "path", csv, may_be_empty=True)
    if SET_COLUMN in frame and (odd := sorted(set(frame[SET_COLUMN]) - set(SETS))):
        raise AgiqaError(f"{csv}: column {SET_COLUMN} holds {some(odd)}, no known side: {advice}")
    return replace(table, frame=frame, root=_root(folder))


def _described(tree: Any, folder: Path, advice: str) -> tuple[ImagesTable, str]:
    """Make a table without rows or root of dataset.json; with the CSV's sha256.

    Raises:
        AgiqaError: a layout that this version does not read.
        ValueError, KeyError, TypeError, AttributeError: a field is absent or of a wrong kind.
    """
    if tree["layout"] != LAYOUT:
        raise AgiqaError(
            f"{folder / DATASET_JSON}: layout {tree['layout']} is not the one that this version "
            f"reads ({LAYOUT}): update agiqa, or {advice}"
        )
    targets = tuple(_target(**target) for target in tree["targets"])
    skipped = tuple(BadImage(*_texts(bad, "path", "reason")) for bad in tree["skipped"])
    name, sha256, licence, source = _texts(tree, "name", "images_csv_sha256", "licence", "source")
    synthetic = tree["synthetic"]
    if not isinstance(synthetic, bool):
        raise ValueError(f"synthetic is {synthetic!r}")
    columns = [*(scores := _score_columns(targets)), *RESERVED]
    if len(set(columns)) < len(columns):
        raise ValueError(f"{some(scores)}: two columns of one name, or one of the table's own")
    table = ImagesTable(name, None, pd.DataFrame(), targets, synthetic, licence, source, skipped)
    return table, sha256


def _score_columns(targets: Sequence[Target]) -> list[str]:
    """List the columns of numbers: each target's, of its deviations and of its raters."""
    return [name for t in targets for name in (t.name, t.deviation, t.raters) if name]


def _texts(tree: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    """Look up the texts under these keys."""
    if wrong := [key for key in keys if not isinstance(tree[key], str)]:
        raise ValueError(f"{wrong[0]} is {tree[wrong[0]]!r}, not text")
    return tuple(tree[key] for key in keys)


def _target(
    *,
    name: str,
    low: float,
    high: float,
    scale: Sequence[float] | None = None,
    deviation: str = "",
    raters: str = "",
    direction: str = DIRECTION,
) -> Target:
    """Make a target as dataset.json has it."""
    columns = [target_name(column, "a column") for column in (name, deviation, raters) if column]
    ends = (low, high) if scale is None else (low, high, *scale)
    if direction != DIRECTION or columns[:1] != [name] or len(ends) not in (2, 4):
        raise ValueError(f"direction of {name} is {direction!r}, its scale {scale!r}")
    if any(isinstance(end, bool) or not math.isfinite(end) for end in ends):
        raise ValueError(f"target {name!r}: {ends} are not all numbers")
    nominal = (float(ends[2]), float(ends[3])) if len(ends) == 4 else None
    return Target(name, low, high, nominal, deviation, raters)


def _root(folder: Path) -> Path | None:
    """Find where the images are on this machine; None where nobody has said."""
    path = folder / ROOT_JSON
    if not path.exists():
        return None
    try:
        (root,) = _texts(read_json(path), "root")
        if not Path(root).is_absolute() and root != ".":
            root = inner_path(root, "root")
    except (ValueError, KeyError, TypeError, AgiqaError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise AgiqaError(f"{path}: damaged ({reason}): run `agiqa prepare` again") from error
    return Path(root) if Path(root).is_absolute() else (folder / root).resolve()
