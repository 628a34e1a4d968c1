"""Images chosen by their scores: the best of each prompt, the worst tenth, all below a limit."""

import io
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from agiqa.core.errors import AgiqaError, UsageError, one_line, printable, quoted, some
from agiqa.core.regular_files import read_regular
from agiqa.core.spreadsheets import plain_cell
from agiqa.core.trees import parse_json
from agiqa.core.urls import is_url
from agiqa.data.datasets.text_table import numbers, read_text_csv, require_columns
from agiqa.data.image_formats import FormatError, read_picture
from agiqa.data.images import ImageError, require_file
from agiqa.runs.image_inputs import read_inputs
from agiqa.runs.input_addresses import without_file_scheme
from agiqa.runs.shards import SHARDS, ImageInput

MOST_BYTES = 4 << 30  # of a table of scores
SUFFIXES = {  # of what has none, by its format
    **{"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp"},
    **{"TIFF": ".tif", "PPM": ".ppm"},
}
FOLDER = "folder"  # as a group: the folder that the image lies in


@dataclass(frozen=True)
class Choice:
    """Which images are wanted; every condition that is given holds."""

    group_by: str = ""  # a column, or FOLDER; "": all images are one group
    best: int | None = None  # of each group
    worst: int | None = None  # of each group
    above: float | None = None  # the score, or equal
    below: float | None = None  # the score
    worst_share: float | None = None  # of each group, 0 to 1; at least one image

    def __post_init__(self) -> None:
        """Refuse a choice of nothing, and limits that are no numbers, as errors of usage."""
        limits = {"--above": self.above, "--below": self.below}
        for name, limit in limits.items():
            if limit is not None and not math.isfinite(limit):
                raise UsageError(f"{name}: expected a number, found {limit}.")
        if {self.best, self.worst, self.worst_share, *limits.values()} == {None}:
            raise UsageError("expected --best, --worst, --worst-share, --above or --below.")


def read_scores(path: Path) -> pd.DataFrame:
    """Read a table that `agiqa score` wrote (.csv, .tsv, .parquet, .jsonl), as it stands.

    Raises:
        AgiqaError: no table, or one without an image and a score in every row.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        frame = read_text_csv(path).map(plain_cell)
    elif suffix in (".parquet", ".jsonl"):
        frame = _read_frame(path)
    else:
        raise AgiqaError(
            f"{printable(path)}: expected scores in .csv, .tsv, .parquet or .jsonl, as agiqa score "
            "-o writes them"
        )
    require_columns(frame, ["image", "score"], path)
    if frame.empty:
        raise AgiqaError(f"{printable(path)}: expected scores of images, found none")
    frame["image"] = frame["image"].astype(str)
    frame["score"] = numbers(frame.astype({"score": str}), "score", "image", path)
    return frame


def _read_frame(path: Path) -> pd.DataFrame:
    """Read Parquet, or JSON Lines."""
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(io.BytesIO(read_regular(path, MOST_BYTES)))
        rows = list(map(parse_json, read_regular(path, MOST_BYTES).splitlines()))
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("lines that are no JSON objects")
        return pd.DataFrame(rows)
    except ImportError as error:
        raise AgiqaError(f"{path}: Parquet needs pyarrow: pip install 'agiqa[parquet]'") from error
    except (OSError, ValueError) as error:  # pyarrow's and json's are among them
        raise AgiqaError(
            f"{printable(path)}: expected scores, found another or a damaged file "
            f"({one_line(error)})"
        ) from error


def select(scores: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """Select the rows that are wanted, best first, equal ones in the order of the table.

    Args:
        scores: columns image and score, and that of `choice.group_by`.
        choice: what is wanted.

    Raises:
        AgiqaError: there is no such column.
    """
    groups = _groups(scores, choice.group_by)
    ranked = scores.assign(_group=groups).sort_values("score", ascending=False, kind="stable")
    grouped = ranked.groupby("_group", sort=False)
    rank = grouped.cumcount()  # 0: the best of its group
    size = grouped["score"].transform("size")
    from_worst = size - 1 - rank
    wanted = pd.Series(True, index=ranked.index)
    if choice.best is not None:
        wanted &= rank < choice.best
    if choice.worst is not None:
        wanted &= from_worst < choice.worst
    if choice.worst_share is not None:
        wanted &= from_worst < (size * choice.worst_share).round().clip(lower=1)
    if choice.above is not None:
        wanted &= ranked["score"] >= choice.above
    if choice.below is not None:
        wanted &= ranked["score"] < choice.below
    return ranked[wanted].drop(columns="_group")


def _groups(scores: pd.DataFrame, by: str) -> "pd.Series[str]":
    if not by:
        return pd.Series("", index=scores.index)
    if by in scores:
        groups = scores[by].fillna("").astype(str)
        if not groups.any():
            raise AgiqaError(
                f"the column {quoted(by)} to group by is empty: score with a table or shards that "
                "have it, or group by folder"
            )
        return groups
    if by == FOLDER:
        return scores["image"].map(lambda name: str(Path(name).parent))
    raise AgiqaError(
        f"expected a column {quoted(by)} to group by, found "
        f"{some([quoted(str(name)) for name in scores.columns], 20)}: score a table that has it, "
        f"with --keep {by} (prompts: --prompt-column), or group by folder"
    )


def put_images(images: Sequence[str], folder: Path, link: bool) -> str:
    """Copy images into a folder, or link them there, under their own names; what is there stays.

    Args:
        images: as `agiqa score` names them: paths, URLs, members of shards.
        folder: made where it is not there.
        link: link files instead of copying them.

    Returns:
        How many there are now, and how many other files.

    Raises:
        AgiqaError: images are gone or none (all others are put there first), a member of a shard is
            to be linked, or another file has that name there.
    """
    targets = _targets(images, folder)
    folder.mkdir(parents=True, exist_ok=True)
    missing: list[str] = []
    own = set[Path]()
    for image in _images(images):
        problem, suffix = (image.problem, "") if image.problem else _format(image)
        if problem:
            missing.append(f"{printable(image.name)} {problem}")
            continue
        target = targets[image.name]
        if not target.suffix:
            target = target.with_name(target.name + suffix)
        own.add(target)
        if link and image.path is None:
            raise AgiqaError(
                f"{printable(image.name)}: expected a file to link to, found one inside another: "
                "copy it (--copy-to)"
            )
        if os.path.lexists(target):
            content = image.content if image.path is None else image.path.read_bytes()
            if target.is_file() and target.read_bytes() == content:
                continue
            raise AgiqaError(f"{target}: another file is there: choose an empty folder")
        if link and image.path is not None:
            target.symlink_to(image.path.absolute())
        else:
            _copy(image, target)
    if missing:
        raise AgiqaError(
            f"{len(missing)} of {len(targets)} images cannot be had, the others are in "
            f"{printable(folder)}: {some(missing, 3)} (names are relative to the folder in which "
            "agiqa score ran)"
        )
    others = sum(path not in own for path in folder.iterdir())
    beside = f", beside {others:,} other{'s' * (others != 1)}" if others else ""
    return f"{len(own):,} image{'s' * (len(own) != 1)}{beside}"


def _copy(image: ImageInput, target: Path) -> None:
    """Copy an image whole: what a stop cuts short has another name, and is written over."""
    partial = target.with_name(f".{target.name}.part")
    if image.path is None:
        partial.write_bytes(image.content or b"")
    else:
        shutil.copy2(image.path, partial)
    partial.replace(target)


def _format(image: ImageInput) -> tuple[str, str]:
    """Tell why the file is no image, or the suffix of its format: a table may name any file."""
    try:
        if image.path is not None:
            require_file(image.path)
        content = image.content or b"" if image.path is None else image.path.read_bytes()
        return "", SUFFIXES[read_picture(content).format]
    except ImageError as error:
        return error.reason, ""
    except FormatError as error:
        return str(error), ""


def _targets(images: Sequence[str], folder: Path) -> dict[str, Path]:
    """Name each image's file in the folder: by its own name, the same ones by their number too."""
    own = {image: printable(image.replace("\\", "/").rsplit("/", 1)[-1]) for image in images}
    own = {image: name.rsplit(":", 1)[-1] for image, name in own.items()}
    times = Counter(own.values())
    width = len(str(len(images)))
    return {
        image: folder / (name if times[name] == 1 else f"{number:0{width}}-{name}")
        for number, (image, name) in enumerate(own.items(), start=1)
    }


def _images(names: Sequence[str]) -> Iterator[ImageInput]:
    """Find images by their names; those of a shard in one pass over it."""
    by_shard: dict[str, set[str]] = {}
    for name in names:
        shard = next((name[: name.rindex(f"{kind}:") + len(kind)] for kind in SHARDS
                      if f"{kind}:" in name), "")  # fmt: skip
        if shard:
            by_shard.setdefault(shard, set()).add(name)
        elif is_url(address := without_file_scheme(name)):
            of_url = (image for image in read_inputs([name]) if image.name == name)
            yield next(of_url, ImageInput(name, problem="is no image"))
        elif Path(address).is_file():
            yield ImageInput(name, Path(address))
        else:
            yield ImageInput(name, problem="is no longer there")
    for shard, wanted in by_shard.items():
        for image in read_inputs([shard]):
            if image.name in wanted:
                wanted.discard(image.name)
                yield image
        yield from (ImageInput(name, problem="is no longer there") for name in wanted)
