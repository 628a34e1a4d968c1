"""Tables of labels, checked: their columns, names and numbers, with errors that name rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, printable, quoted, some
from agiqa.data.datasets.text_table import separator_hint

LARGEST = 1e9  # of a score, either way: larger ones overflow the moments of a column


def require_columns(frame: pd.DataFrame, names: Sequence[str], path: Path) -> None:
    """Refuse a table that lacks a column, naming those it has."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        header = [str(name) for name in frame.columns]
        plain = {" ".join(name.split()).casefold(): name for name in header}
        near = [plain[key] for name in missing if (key := name.strip().casefold()) in plain]
        hint = separator_hint(header) or (f"is {near[0]!r} meant?" if near else "")
        raise AgiqaError(
            f"{path}: expected the column{'s' * (len(missing) > 1)} "
            f"{some([quoted(name) for name in missing])}; found "
            f"{some([quoted(name) for name in header], 20)}{hint and ': ' + hint}"
        )


def refuse_duplicates(paths: "pd.Series[str]", csv: Path | str) -> None:
    """Refuse a table that lists one file twice."""
    twice = sorted(set(paths[paths.duplicated()]))
    if twice:
        raise AgiqaError(
            f"{csv}: {len(twice)} image{'s are' if len(twice) > 1 else ' is'} listed more than "
            f"once ({some([printable(p) for p in twice])}): keep one row for each"
        )


def numbers(
    frame: pd.DataFrame, column: str, name_column: str, csv: Path, *, may_be_empty: bool = False
) -> "pd.Series[float]":
    """The column as finite floats; a row without one is named, counting from 1 below the header.

    An empty cell is NaN where it `may_be_empty`.
    """
    values = pd.to_numeric(frame[column], errors="coerce").astype(float)
    usable = np.abs(values.to_numpy()) <= LARGEST  # False for NaN
    if may_be_empty:
        usable |= (frame[column] == "").to_numpy()
    wrong = np.flatnonzero(~usable)
    if len(wrong):
        rows = [
            f"row {i + 1} ({printable(frame[name_column].iloc[i])}): {frame[column].iloc[i]!r}"
            for i in wrong
        ]
        comma = frame[column].iloc[wrong].str.fullmatch(r"\s*[+-]?\d+,\d+\s*").any()
        mend = "write numbers with a point" if comma else "fill in or remove those rows"
        raise AgiqaError(
            f"{csv}: column {quoted(column)} must hold a number in every row; found {some(rows)}: "
            f"{mend}"
        )
    return values
