"""Splits of other people: names and sides in their layout become a protocol with its own name.

Layouts that papers release splits in are all read as one table of text:

| layout | sides | splits |
|---|---|---|
| a CSV or TSV | a column | a column of seeds, else one |
| a JSON list of objects, or one object a line | a key | a key, else one |
| a JSON object of lists, `{"train": [...], "test": [...]}` | its keys | one |
| a .mat of index lists (`train_idx`, `test_idx`) | the variables' names | one |
| a folder of files of names, `train.csv`, `val.csv` | the files' names | one |
| a folder of such folders, `1/`, `2/` (IPCE and its followers) | as above | by their numbers |

Files of names are CSVs or JSON lists of names or of objects (M3-AGIQA). Where a folder has train
and val and no test, val is what its authors report on: the test side. Indices count the rows of the
data set's labels, from 0 where a 0 is among them, from 1 where the last row's number is.

What stands in such files differs, so the columns and the sides are found by their usual spellings,
and images by the longest end of their path that fits: `AGIQA-3K/a.jpg`, `a.jpg` and `a` all mean
the same image, as long as no other is meant as well. Nothing is guessed beyond that: a name that
fits no image, or two, refuses the file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from agiqa.core.errors import AgiqaError, one_line, printable, quoted, some
from agiqa.core.regular_files import read_regular
from agiqa.core.trees import MOST_JSON, parse_json
from agiqa.data.datasets.matlab import read_lists
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.datasets.text_table import read_text_csv, separator_hint
from agiqa.data.images import IMAGE_SUFFIXES
from agiqa.data.splits.protocols import (
    COLUMNS,
    PROTOCOLS,
    SIDES,
    deal_grouped,
    deal_random,
    named_groups,
    protocol_name,
    with_scores,
)

# Spellings, in lower case, spaces and dashes as underscores; the first that a file has counts.
NAME_COLUMNS = (
    "name", "path", "image", "image_name", "image_path", "filename", "file_name", "file", "img",
    "img_name", "img_path",
)  # fmt: skip
SIDE_COLUMNS = ("side", "set", "split", "subset", "partition")
SEED_COLUMNS = ("seed", "repeat", "round")
OPTIONS = {  # of `agiqa splits import`, by what the column holds
    "images": "--name-column",
    "sides": "--side-column",
    "seeds": "--seed-column",
}
RESERVED = (*PROTOCOLS, "auto", "cross")
SPELLINGS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "te", "holdout", "held_out"), "test"),
}
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")  # of files of names
MOST_SPLITS = 10_000


@dataclass(frozen=True)
class Imported:
    """A foreign split file, understood."""

    splits: pd.DataFrame  # the columns of a split file
    matched: dict[str, int]  # rows by what their name fitted: path, end of path, stem
    left_out: int  # images of the data set that have a score and stand in no split
    val_from_train: int  # validation images that were taken from training


def import_splits(
    file: Path,
    table: ImagesTable,
    protocol: str,
    *,
    name_column: str = "",
    side_column: str = "",
    seed_column: str = "",
    val_share: float = 0.0,
    only: tuple[int, int] | None = None,
) -> Imported:
    """Read names and sides, with an optional seed (or repeat) for several splits.

    Args:
        file: a file or folder of a layout above; a column `image_id` is held to.
        table: the data set it divides.
        protocol: the name that its results will go by.
        name_column: of the images, several with slashes between them ("model/image"); "" finds it.
        side_column: "" finds it.
        seed_column: "" finds it, and takes a file without one as a single split.
        val_share: of the training images, taken for validation in each split that has none;
            images of one group stay together.
        only: take the splits numbered from the first to the second alone.

    Raises:
        AgiqaError: a name that fits no image or several, an image twice in one split or without a
            score, an unknown side, a missing one, or a protocol name that is ours.
    """
    if protocol_name(protocol) in RESERVED:
        raise AgiqaError(
            f"the protocol name {protocol} is agiqa's own ({', '.join(RESERVED)}): "
            "give the imported splits another one, such as smith2024"
        )
    frame = read_foreign(file, list(table.frame["path"]))
    seeds = _seeds(frame, file, seed_column)
    if only is not None:
        chosen = _numbered(seeds, only, file)
        frame, seeds = frame[chosen].reset_index(drop=True), seeds[chosen]
    columns = [
        frame[_column(frame, file, "images", NAME_COLUMNS, name)] for name in name_column.split("/")
    ]
    names = ["/".join(parts) for parts in zip(*columns, strict=True)]
    sides = _sides(frame, file, side_column)
    rows, matched = _match(names, table, file)
    splits = table.frame[["path", "image_id"]].iloc[rows].reset_index(drop=True)
    splits = splits.rename(columns={"path": "name"})
    splits = splits.assign(seed=seeds, side=sides, protocol=protocol)
    _check(splits, frame, table, file)
    splits, val_count = _take_val(splits, table, val_share)
    _require_sides(splits, file)
    unused = set(with_scores(table).frame["path"]) - set(splits["name"])
    return Imported(splits[list(COLUMNS)], matched, len(unused), val_count)


def _numbered(seeds: np.ndarray, only: tuple[int, int], file: Path) -> np.ndarray:
    """Tell which rows `(N,)` are of the splits from the first to the second number."""
    chosen = (seeds >= only[0]) & (seeds <= only[1])
    if not chosen.any():
        raise AgiqaError(
            f"{file}: expected splits numbered {only[0]} to {only[1]}, found "
            f"{some([str(seed) for seed in np.unique(seeds)], 20)}: choose among these"
        )
    return np.asarray(chosen)


def _column(frame: pd.DataFrame, file: Path, content: str, usual: Sequence[str], name: str) -> str:
    """Find the column that holds `content`, by its name or else by the first usual one."""
    for spelling in (plain(name),) if name else usual:
        alike = [str(column) for column in frame.columns if plain(str(column)) == spelling]
        if name in alike:
            return name
        if len(alike) > 1:
            raise AgiqaError(
                f"{file}: {' and '.join(map(repr, alike))} may both be the column of {content}: "
                f"name it with {OPTIONS[content]}"
            )
        if alike:
            return alike[0]
    raise AgiqaError(
        f"{file}: expected a column of {content} ({quoted(name) or ', '.join(usual)}), found "
        f"{some([quoted(str(column)) for column in frame.columns], 20)}: "
        + (separator_hint(list(frame.columns)) or f"name it with {OPTIONS[content]}")
    )


def _sides(frame: pd.DataFrame, file: Path, side_column: str) -> list[str]:
    column = _column(frame, file, "sides", SIDE_COLUMNS, side_column)
    if not side_column:  # `split` may count the splits beside a column `set`
        spelled = {plain(str(column)) for column in frame.columns}
        usual = [name for name in SIDE_COLUMNS if name in spelled]
        columns = (_column(frame, file, "sides", [name], "") for name in usual)
        column = next((name for name in columns if all(map(side_of, frame[name]))), column)
    values = list(frame[column])
    if unknown := sorted({plain(value) for value in values if not side_of(value)}):
        raise AgiqaError(
            f"{file}: column {column} must hold train, val or test (or training, validation, "
            f"testing …) in every row; found {some([repr(value) for value in unknown])}"
        )
    return [side_of(value) for value in values]


def _seeds(frame: pd.DataFrame, file: Path, seed_column: str) -> npt.NDArray[np.int_]:
    spelled = {plain(str(column)) for column in frame.columns}
    if not seed_column and not spelled & set(SEED_COLUMNS):
        return np.zeros(len(frame), dtype=int)
    column = _column(frame, file, "seeds", SEED_COLUMNS, seed_column)
    seeds = pd.to_numeric(frame[column], errors="coerce")
    wrong = frame[column][seeds.isna() | (seeds % 1 != 0)]
    if len(wrong):
        raise AgiqaError(
            f"{file}: column {column} must hold a whole number in every row; "
            f"found {some([repr(value) for value in dict.fromkeys(wrong)])}"
        )
    return seeds.to_numpy().astype(int)


def _match(names: list[str], table: ImagesTable, file: Path) -> tuple[list[int], dict[str, int]]:
    """Find the table's row for each name, and count how many fitted by what."""
    by_path = {_parts(path): [row] for row, path in enumerate(table.frame["path"])}
    by_end: dict[tuple[str, ...], list[int]] = {}
    by_stem: dict[tuple[str, ...], list[int]] = {}
    for row, path in enumerate(table.frame["path"]):
        parts = _parts(path)
        bare = (*parts[:-1], _stem(parts[-1]))
        for start in range(len(parts)):
            by_end.setdefault(parts[start:], []).append(row)
            by_stem.setdefault(bare[start:], []).append(row)
    rows: list[int] = []
    unknown: list[str] = []
    ambiguous: list[str] = []
    matched = {"path": 0, "name": 0, "stem": 0}
    for name in names:
        parts = _parts(name)
        candidates, matched_by = by_path.get(parts, []), "path"
        if not candidates and parts:
            candidates, matched_by = _longest(parts, by_end), "name"
        if not candidates and parts:
            candidates, matched_by = _longest((*parts[:-1], _stem(parts[-1])), by_stem), "stem"
        if len(candidates) == 1:
            matched[matched_by] += 1
            rows.append(candidates[0])
        else:
            (ambiguous if candidates else unknown).append(printable(name))
    _refuse_strangers(unknown, ambiguous, len(names), table, file)
    return rows, matched


def _refuse_strangers(
    unknown: list[str], ambiguous: list[str], count: int, table: ImagesTable, file: Path
) -> None:
    if unknown:
        skipped = f" ({len(table.skipped)} were skipped by prepare)" if table.skipped else ""
        raise AgiqaError(
            f"{file}: {len(unknown)} of {count} names are of no image of {table.name}"
            f"{skipped}: {some(list(dict.fromkeys(unknown)), 3)}; expected names such as "
            f"{some(list(table.frame['path']), 1).split(' and ')[0]}: "
            + (
                "import these splits into the data set that they divide"
                if len(unknown) == count
                else f"remove these rows, or prepare {table.name} with these images"
            )
        )
    if ambiguous:
        raise AgiqaError(
            f"{file}: {len(ambiguous)} names fit several images of {table.name} "
            f"({some(list(dict.fromkeys(ambiguous)), 3)}): give their paths"
        )


def _longest(parts: tuple[str, ...], index: dict[tuple[str, ...], list[int]]) -> list[int]:
    """Find rows under the longest end of the path that fits any."""
    ends = (parts[start:] for start in range(len(parts)))
    return next((index[end] for end in ends if end in index), [])


def _check(splits: pd.DataFrame, frame: pd.DataFrame, table: ImagesTable, file: Path) -> None:
    twice = splits[splits.duplicated(["seed", "name"])]
    if len(twice):
        raise AgiqaError(
            f"{file}: {len(twice)} images stand twice in one split "
            f"({some(list(dict.fromkeys(twice['name'])), 3)}): one row for each image and split"
        )
    scored_paths = set(with_scores(table).frame["path"])
    silent = [name for name in dict.fromkeys(splits["name"]) if name not in scored_paths]
    if silent:
        raise AgiqaError(
            f"{file}: {len(silent)} images have no score in {table.name} ({some(silent, 3)}): "
            "remove their rows"
        )
    if "image_id" in frame:
        changed = splits["name"][(frame["image_id"] != splits["image_id"]).to_numpy()]
        if len(changed):
            raise AgiqaError(
                f"{file}: {len(changed)} images are other files here than those that were split "
                f"({some(list(dict.fromkeys(changed)), 3)}): their image_id differs; prepare the "
                "files that were split, or remove the column image_id to take these by name"
            )


def _take_val(splits: pd.DataFrame, table: ImagesTable, share: float) -> tuple[pd.DataFrame, int]:
    """Take a share of training as validation where a split has none, and count the images."""
    row_of = {path: row for row, path in enumerate(table.frame["path"])}
    val_count = 0
    for seed in splits["seed"].unique():
        split = splits[splits["seed"] == seed]
        train = split[split["side"] == "train"]
        if not share or len(train) < 2 or (split["side"] == "val").any():
            continue
        train_rows = train.sort_values("name").index.to_numpy()  # whatever the file's own order
        train_frame = table.frame.iloc[[row_of[name] for name in splits["name"].iloc[train_rows]]]
        images = ImagesTable(**{**vars(table), "frame": train_frame.reset_index(drop=True)})
        deal = deal_grouped if named_groups(images) > 2 else deal_random
        _, _, val = deal(images, int(seed), (1 - share, 0.0, share))
        splits.loc[train_rows[val], "side"] = "val"
        val_count += len(val)
    return splits, val_count


def _require_sides(splits: pd.DataFrame, file: Path) -> None:
    for seed, split in splits.groupby("seed"):
        sizes = split["side"].value_counts()
        if missing := [side for side in SIDES if side not in sizes]:
            present = ", ".join(f"{side} {sizes[side]:,}" for side in SIDES if side in sizes)
            hint = "add their images, or import the other splits alone (--only-splits)"
            if missing == ["val"]:
                hint = "take a share of train for it (--val-share 0.125), or add its rows"
            raise AgiqaError(
                f"{file}: split {seed} has no {' or '.join(missing)} side (found {present}): {hint}"
            )


def _parts(path: str) -> tuple[str, ...]:
    return tuple(
        part for part in path.strip().replace("\\", "/").split("/") if part not in ("", ".")
    )


def _stem(name: str) -> str:
    """Cut off an image's suffix; other dots belong to the name (`sd1.5_normal_000`)."""
    lower = name.lower()
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if lower.endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def read_foreign(file: Path, paths: Sequence[str]) -> pd.DataFrame:
    """Read a split file, or a folder of them, as text: a row for each image and split.

    Indices count `paths`, those of the data set's images in the order of its labels.

    Raises:
        AgiqaError: no such layout, or a file of it that cannot be read or names no side.
    """
    if file.is_dir():
        frame = _folder(file)
    elif file.suffix.lower() == ".mat":
        frame = _indices(file, paths)
    else:
        frame = _names(file)
    if isinstance(frame, dict) and frame:
        frame = _joined({_side(key, file): names for key, names in frame.items()})
    if not isinstance(frame, pd.DataFrame) or frame.empty:
        raise AgiqaError(
            f"{file}: expected names and their sides, found {len(frame):,} names and no sides: "
            "give a folder with files train... and test..., or a table with a column of sides"
        )
    return frame


def side_of(text: str) -> str:
    """Give the side that a word stands for, "" where it stands for none."""
    return SPELLINGS.get(plain(text), "")


def plain(text: str) -> str:
    """Spell a word of somebody's own as words are compared here."""
    return text.strip().lower().replace(" ", "_").replace("-", "_")


def _side(name: str, file: Path) -> str:
    """Give the side that some word of a file's, key's or variable's name stands for."""
    sides = {side for word in re.split(r"[^A-Za-z]+", name) if (side := side_of(word))}
    if len(sides) != 1:
        raise AgiqaError(
            f"{file}: expected names that say one side (train, val, test), found {quoted(name)}"
        )
    return sides.pop()


def _folder(folder: Path) -> pd.DataFrame:
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())
    if len(inner) > MOST_SPLITS:
        raise AgiqaError(f"{folder}: {len(inner):,} splits, the most are {MOST_SPLITS:,}")
    splits = [_split(path).assign(seed=path.name) for path in inner] or [_split(folder)]
    return pd.concat(splits, ignore_index=True)


def _split(folder: Path) -> pd.DataFrame:
    """Read one split: a file of names for each side."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            side = _side(path.stem, folder)
            if side in files:
                pair = f"{printable(files[side].name)} and {printable(path.name)}"
                raise AgiqaError(f"{folder}: two files of the side {side} ({pair}): keep one")
            files[side] = path
    if not files:
        present = some(sorted(printable(path.name) for path in folder.iterdir())) or "nothing"
        raise AgiqaError(
            f"{folder}: expected train.csv and val.csv or test.csv (or .json), alone or in folders "
            f"1, 2 …, found {present}"
        )
    if "test" not in files and "val" in files:
        files["test"] = files.pop("val")
    names = {side: _names(path) for side, path in files.items()}
    if several := next((files[side] for side in names if isinstance(names[side], dict)), None):
        raise AgiqaError(
            f"{several}: expected the names of one side, found an object of lists: give this file "
            "instead of its folder if it has all sides"
        )
    return _joined(names)


def _joined(by_side: Mapping[str, Any]) -> pd.DataFrame:
    """Join the frames or lists of names of each side."""
    frames = [
        pd.DataFrame({"name": names} if isinstance(names, list) else names).assign(side=side)
        for side, names in by_side.items()
    ]
    return pd.concat(frames, ignore_index=True).fillna("")


def _names(file: Path) -> Any:
    """Read a file of names: a frame of text, or of JSON also a list, or lists by key."""
    if file.suffix.lower() not in (".json", ".jsonl"):
        return read_text_csv(file)
    try:
        tree = _json(file)
    except FileNotFoundError:
        raise AgiqaError(f"{file}: does not exist; expected a file of splits") from None
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{file}: is not a readable JSON file ({one_line(error)})") from error
    if isinstance(tree, dict) and all(_are_texts(names) for names in tree.values()):
        return tree
    if _are_texts(tree):
        return tree
    if isinstance(tree, list) and all(isinstance(entry, dict) for entry in tree):
        rows = [
            {k: v for k, v in entry.items() if isinstance(v, str | int | float)} for entry in tree
        ]
        return pd.DataFrame(rows).map(lambda cell: "" if pd.isna(cell) else str(cell))
    raise AgiqaError(
        f"{file}: expected a list of names, a list of objects with a name each, or an object with "
        "lists of names by side"
    )


def _json(file: Path) -> Any:
    """Read a JSON file, or one of a JSON text a line, as the list of them."""
    data = read_regular(file, MOST_JSON)
    try:
        return parse_json(data)
    except ValueError:
        lines = data.splitlines()
        if file.suffix.lower() != ".jsonl" or len(lines) < 2:
            raise
        return [parse_json(line) for line in lines if line.strip()]


def _are_texts(tree: Any) -> bool:
    return isinstance(tree, list) and all(isinstance(text, str) for text in tree)


def _indices(file: Path, paths: Sequence[str]) -> pd.DataFrame:
    """Read a .mat of index lists, whose variables' names say their sides."""
    lists = {_side(name, file): numbers for name, numbers in read_lists(file).items()}
    rows = np.concatenate(list(lists.values())) if lists else np.empty(0, dtype=int)
    last = len(paths)
    if not len(rows) or (rows.min() == 0) == (rows.max() == last) or rows.min() < 0:
        span = f"{rows.min()} to {rows.max()}" if len(rows) else "none"
        raise AgiqaError(
            f"{file}: expected the numbers of {last:,} rows from 0 or 1, the first or last "
            f"among them, found {span}: is it of this data set? A CSV of names leaves no doubt"
        )
    first = 0 if rows.min() == 0 else 1
    if rows.max() - first >= last:
        raise AgiqaError(
            f"{file}: names row {rows.max():,}, the data set has {last:,}: is it of this data set?"
        )
    return _joined({side: [paths[row - first] for row in rows] for side, rows in lists.items()})
