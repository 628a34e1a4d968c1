"""Label files: CSVs read as plain text and checked, with errors that name rows and columns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from agiqa.errors import AgiqaError, printable, some


def read_text_csv(path: Path) -> pd.DataFrame:
    """A CSV with every cell as the text it is ("NA" is a name like any other)."""
    try:
        return pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            sep="\t" if path.suffix.lower() == ".tsv" else ",",
        )
    except FileNotFoundError:
        raise AgiqaError(f"{path}: does not exist; expected a CSV file") from None
    except UnicodeDecodeError as error:
        raise AgiqaError(f"{path}: is not UTF-8 text ({error}): save it as UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise AgiqaError(f"{path}: is not a readable CSV ({str(error).strip()})") from error
    except OSError as error:
        raise AgiqaError(f"{path}: cannot be read: {error.strerror}") from error


def require_columns(frame: pd.DataFrame, names: Sequence[str], path: Path) -> None:
    """Refuse a CSV that lacks a column, naming those it has."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise AgiqaError(
            f"{path}: expected the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"found {', '.join(map(str, frame.columns))}"
        )


def refuse_duplicates(paths: "pd.Series[str]", csv: Path) -> None:
    """Refuse a CSV that lists one file twice."""
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
    usable = np.isfinite(values.to_numpy())
    if may_be_empty:
        usable |= (frame[column] == "").to_numpy()
    wrong = np.flatnonzero(~usable)
    if len(wrong):
        rows = [
            f"row {i + 1} ({printable(frame[name_column].iloc[i])}): {frame[column].iloc[i]!r}"
            for i in wrong
        ]
        raise AgiqaError(
            f"{csv}: column {column} must hold a number in every row; found {some(rows)}: "
            "fill in or remove those rows"
        )
    return values
