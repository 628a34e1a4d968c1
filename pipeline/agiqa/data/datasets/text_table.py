"""CSV, TSV and Excel files of anybody as tables of text, row by row, every cell as it stands.

A CSV is read strictly, with Python's own csv: pandas takes a first column without a name for row
names and moves the others, renames a column that stands twice, fills rows that are too short, and
unpacks what ends in .gz. Here each of these is an error that names the line, but for trailing
commas, which programs write and mean nothing by. Bounded in the length of a line, columns and
cells. What a table lacks, or holds that is no number, is an error that names columns and rows.

A workbook (.xlsx) is a ZIP archive of XML, which unpacks to a thousand times its size and may place
a cell a million rows away: what it would unpack to is looked at first, and rows are read one by
one.
"""

import csv
import io
import logging
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, one_line, printable, quoted, some
from agiqa.core.regular_files import MIB, open_regular

logger = logging.getLogger(__name__)

TABS = ".tsv"
MOST_LINE = 1 << 20  # characters
MOST_COLUMNS = 1000
MOST_CELLS = 100_000_000
MOST_UNPACKED = 16 * MIB  # of the sheets and texts in a workbook
MOST_OTHER = MIB // 2  # of each other part, such as styles
MOST_SHEET_ROWS, MOST_SHEET_COLUMNS = 200_000, 100
LARGEST = 1e9  # of a score, either way: larger ones overflow the moments of a column


def read_text_csv(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV in UTF-8 (a .tsv with tabs), every cell as text ("NA" is a name like any).

    Lines without anything in a cell are passed over, and so are columns without a name.

    Raises:
        AgiqaError: absent, no regular file, not UTF-8, no CSV, a row with more or fewer cells than
            there are columns, a column named twice, or too large; says in which line. Or it
            lacks one of `columns`.
    """
    try:
        with open_regular(path) as file:
            frame = parse_text_csv(file, str(path), path.suffix)
    except FileNotFoundError:
        raise AgiqaError(f"{path}: does not exist; expected a CSV file") from None
    except OSError as error:
        raise AgiqaError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise AgiqaError(f"{path}: is not a readable CSV ({one_line(error)})") from error
    require_columns(frame, columns, path)
    return frame


def parse_text_csv(file: "io.BufferedReader[Any]", where: str, suffix: str) -> pd.DataFrame:
    """Read the CSV in an open file as `read_text_csv` does.

    Args:
        file: read to its end, and closed.
        where: it is, for messages.
        suffix: of its name: `.tsv` has tabs.

    Raises:
        AgiqaError: as there.
    """
    try:
        with io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as text:
            start = file.peek(4)[:4]
            if start.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise ValueError("is not UTF-8 text but UTF-16: save it as CSV in UTF-8")
            if start.startswith((b"PK\3\4", b"\x1f\x8b", b"\xd0\xcf\x11\xe0")):
                raise ValueError("an archive or a workbook, not text: unpack it, or save it as CSV")
            return _read(text, "\t" if suffix.lower() == TABS else ",")
    except (csv.Error, ValueError) as error:
        raise AgiqaError(f"{where}: is not a readable CSV ({one_line(error)})") from error


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


def refuse_duplicates(paths: "pd.Series[str]", file: Path | str) -> None:
    """Refuse a table that lists one file twice."""
    twice = sorted(set(paths[paths.duplicated()]))
    if twice:
        raise AgiqaError(
            f"{file}: {len(twice)} image{'s are' if len(twice) > 1 else ' is'} listed more than "
            f"once ({some([printable(p) for p in twice])}): keep one row for each; one that was "
            "rated for two prompts needs a copy under a second name"
        )


def numbers(
    frame: pd.DataFrame, column: str, name_column: str, path: Path, *, may_be_empty: bool = False
) -> "pd.Series[float]":
    """Read the column as finite floats; a row without one is named, the first being 1.

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
            f"{path}: column {quoted(column)} must hold a number in every row; found {some(rows)}: "
            f"{mend}"
        )
    return values


def _read(text: io.TextIOWrapper, separator: str) -> pd.DataFrame:
    rows = csv.reader(_lines(text), delimiter=separator, strict=True)
    header = next((row for row in rows if any(row)), None)
    if header is None:
        raise ValueError("it is empty")
    while not header[-1]:  # trailing commas
        header.pop()
    width = len(header)
    if width > MOST_COLUMNS:
        raise ValueError(f"{width:,} columns, the most are {MOST_COLUMNS:,}: is it a table?")
    refuse_twice(header)
    columns: list[list[str]] = [[] for _ in header]
    most_rows = MOST_CELLS // width
    for row in rows:
        if len(row) != width:
            if not any(row):
                continue
            if len(row) < width or any(row[width:]):
                raise ValueError(_ragged(rows.line_num, row, header, separator))
        elif not any(row):
            continue
        for column, cell in zip(columns, row, strict=False):
            column.append(cell)
        if len(columns[0]) > most_rows:
            raise ValueError(f"more than {MOST_CELLS:,} cells: divide it")
    named = {name: column for name, column in zip(header, columns, strict=True) if name}
    return pd.DataFrame({name: pd.Series(cells, dtype=str) for name, cells in named.items()})


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Yield the file's lines with their ends; ValueError for what is too long or no UTF-8."""
    number = 0
    while line := text.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise ValueError(f"line {number:,} has over {MOST_LINE:,} characters: is it a table?")
        if "\0" in line:
            raise ValueError(f"line {number:,} holds a zero byte: is it text?")
        try:
            line.encode()
        except UnicodeEncodeError as error:
            byte = ord(line[error.start]) - 0xDC00
            raise ValueError(
                f"is not UTF-8 text: byte {byte:#x} in line {number:,}: save it as CSV in UTF-8"
            ) from None
        yield line


def refuse_twice(header: list[str]) -> None:
    """Raise ValueError for a column named twice; columns without a name are none."""
    for number, name in enumerate(header):
        if name and name in header[:number]:
            first = header.index(name) + 1
            raise ValueError(
                f"the column {name!r} stands twice, as number {first} and {number + 1}: rename or "
                "remove one"
            )


def _ragged(line: int, row: list[str], header: list[str], separator: str) -> str:
    """Say what is wrong with a row of another width than the header, and what may be meant."""
    names = some([quoted(name) for name in header])
    reason = f"line {line:,} has {len(row)} cells, the header {len(header)} ({names}): "
    if hint := separator_hint(header, separator):
        return reason + hint
    if len(row) == len(header) + 1:
        return reason + (
            "name the column of row names too, or write the file without them (row.names=FALSE "
            "in R, index=False in pandas)"
        )
    return reason + "give every row as many, a cell with a comma in quotes"


def separator_hint(header: list[str], separator: str = ",") -> str:
    """Say what to do where the file seems to be separated otherwise; "" where it does not."""
    if len(header) == 1:
        for sign, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "commas")):
            if sign != separator and sign in header[0]:
                as_tsv = ", or name it .tsv" if sign == "\t" else ""
                return f"it is separated by {name}: save it with commas{as_tsv}"
    return ""


def read_text_sheet(
    path: Path, columns: Sequence[str] = (), *, header: bool = True
) -> pd.DataFrame:
    """Read the first sheet with every cell as text ("" where empty), without empty rows.

    Without a header columns are numbered from 0.

    Raises:
        AgiqaError: absent, unreadable, not an Excel file, too large, or a column is absent or
            named twice.
    """
    try:
        with open_regular(path) as file:
            _require_bounded(file)
            rows = list(_sheet_rows(file, path))
    except FileNotFoundError:
        raise AgiqaError(f"{path}: does not exist; expected an Excel file") from None
    # What openpyxl raises on a file that is no workbook, or half of one; it promises nothing.
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise AgiqaError(f"{path}: cannot be read: {error.strerror}") from error
        raise AgiqaError(
            f"{path}: is not a readable .xlsx file ({one_line(error) or type(error).__name__}): "
            "download it again"
        ) from error
    width = max(map(len, rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in rows]
    if not header:
        return pd.DataFrame(rows, dtype=str)
    names = rows[0] if rows else []
    try:
        refuse_twice(names)
    except ValueError as error:
        raise AgiqaError(f"{path}: {error}") from error
    sheet = pd.DataFrame(rows[1:], columns=names, dtype=str)
    sheet = sheet.loc[:, [name != "" for name in names]]
    require_columns(sheet, columns, path)
    return sheet


def _require_bounded(file: io.BufferedReader) -> None:
    """Raise ValueError unless what the workbook's parts would unpack to is small.

    The sizes are the archive's own words, and no more than that is read of a part.
    """
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    if len({part.filename for part in parts}) < len(parts):
        raise ValueError("two parts of one name")
    large = sum(part.file_size for part in parts if _is_large(part.filename))
    other_sizes = [part.file_size for part in parts if not _is_large(part.filename)]
    if large > MOST_UNPACKED or max(other_sizes, default=0) > MOST_OTHER or len(parts) > 1000:
        raise ValueError(
            f"its sheets unpack to {large:,} bytes, other parts to {sum(other_sizes):,}; the "
            f"most that are read are {MOST_UNPACKED:,} and {MOST_OTHER:,} each"
        )


def _is_large(part: str) -> bool:
    return part.startswith("xl/worksheets/") or part == "xl/sharedStrings.xml"


def _sheet_rows(file: io.BufferedReader, path: Path) -> Iterator[list[str]]:
    """Yield the first sheet's rows with something in them, as wide as their last cell."""
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # styles that openpyxl does not know
        book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
        sheet = book.worksheets[0]
        if len(book.worksheets) > 1:
            logger.warning(
                "%s: of its %d sheets the first, %s, is read", path, len(book.worksheets),
                sheet.title,
            )  # fmt: skip
        sheet.reset_dimensions()  # what the file says of its size
        for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            if number > MOST_SHEET_ROWS or len(cells) > MOST_SHEET_COLUMNS:
                raise ValueError(
                    f"cells beyond row {MOST_SHEET_ROWS:,} or column {MOST_SHEET_COLUMNS}"
                )
            if any(cell not in (None, "") for cell in cells):
                yield [_text(cell) for cell in cells]


def _text(cell: object) -> str:
    """Write a cell as Excel shows it without a format: whole numbers without a point."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell)
