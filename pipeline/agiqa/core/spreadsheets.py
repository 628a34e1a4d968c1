"""Text in CSV that people open in spreadsheets: no cell of it is a formula.

A spreadsheet runs what begins with one of `= + - @`, and names of files, prompts and runs may come
from strangers. Such a cell gets an apostrophe before it, as OWASP's "CSV injection" has it and as
the pages' downloads do (views/kit/web/dom.js). Only files meant for people pass through here
(`score`, `table`); what agiqa reads back itself, such as predictions.csv, stays exact.
"""

import re

_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")


def safe_cell(text: str) -> str:
    """The text; with an apostrophe before it where a spreadsheet would take it for a formula."""
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def plain_cell(text: str) -> str:
    """The text that `safe_cell` was given.

    >>> plain_cell(safe_cell("=1+2.png"))
    '=1+2.png'
    """
    return text[1:] if text[:1] == "'" and safe_cell(text[1:]) == text else text
