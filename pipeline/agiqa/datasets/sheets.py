"""Excel sheets (.xlsx) as plain text, cell by cell, as `labels.read_text_csv` reads a CSV."""

import warnings
import zipfile
from pathlib import Path

import pandas as pd

from agiqa.errors import AgiqaError, one_line


def read_text_sheet(path: Path, *, header: bool = True) -> pd.DataFrame:
    """The first sheet with every cell as text ("" where it is empty).

    Args:
        path: the file.
        header: whether the first row names the columns; else they are numbered from 0.

    Raises:
        AgiqaError: absent, unreadable, or not an Excel file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # styles that openpyxl does not know
            sheet = pd.read_excel(
                path,
                header=0 if header else None,
                dtype=str,
                keep_default_na=False,
                engine="openpyxl",
            )
    except FileNotFoundError:
        raise AgiqaError(f"{path}: does not exist; expected an Excel file") from None
    except OSError as error:
        raise AgiqaError(f"{path}: cannot be read: {error.strerror}") from error
    # What openpyxl raises on a file that is no workbook, or half of one.
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, SyntaxError, EOFError) as error:
        raise AgiqaError(
            f"{path}: is not a readable .xlsx file ({one_line(error)}): download it again"
        ) from error
    return sheet.fillna("")
