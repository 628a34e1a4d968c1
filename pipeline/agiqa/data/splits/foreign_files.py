"""Split files in the layouts that papers release them in, all read as one table of text.

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
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, one_line, printable, quoted, some
from agiqa.core.regular_files import read_regular
from agiqa.core.trees import MOST_JSON, parse_json
from agiqa.data.datasets.matlab import read_lists
from agiqa.data.datasets.text_table import read_text_csv

SPELLINGS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "te", "holdout", "held_out"), "test"),
}
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")  # of files of names
MOST_SPLITS = 10_000
SIDE, SEED = "side", "seed"


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
        frame = _sides({_side(key, file): names for key, names in frame.items()})
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
    splits = [_split(path).assign(**{SEED: path.name}) for path in inner] or [_split(folder)]
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
    return _sides(names)


def _sides(by_side: Mapping[str, Any]) -> pd.DataFrame:
    """Join the frames or lists of names of each side."""
    frames = [
        pd.DataFrame({"name": names} if isinstance(names, list) else names).assign(**{SIDE: side})
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
    return _sides({side: [paths[row - first] for row in rows] for side, rows in lists.items()})
