"""Excel sheets (.xlsx) as plain text, cell by cell, as `text_table.read_text_csv` reads a CSV.

A workbook is a ZIP archive of XML, which unpacks to a thousand times its size and may place a cell
a million rows away: what it would unpack to is looked at first, and rows are read one by one.
"""

import io
import logging
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.regular_files import MIB, open_regular
from agiqa.data.datasets.text_table import refuse_twice, require_columns

logger = logging.getLogger(__name__)

MOST_UNPACKED = 16 * MIB  # of the sheets and texts in a workbook
MOST_OTHER = MIB // 2  # of each other part, such as styles
MOST_ROWS, MOST_COLUMNS = 200_000, 100


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
            rows = list(_rows(file, path))
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


def _rows(file: io.BufferedReader, path: Path) -> Iterator[list[str]]:
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
            if number > MOST_ROWS or len(cells) > MOST_COLUMNS:
                raise ValueError(f"cells beyond row {MOST_ROWS:,} or column {MOST_COLUMNS}")
            if any(cell not in (None, "") for cell in cells):
                yield [_text(cell) for cell in cells]


def _text(cell: object) -> str:
    """Write a cell as Excel shows it without a format: whole numbers without a point."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell)
