"""Errors meant for the user: one line that says what was expected, what was found, what to do."""

import re
from collections.abc import Sequence

# What a terminal or a reader's eye obeys instead of showing it: control characters (C0, DEL, C1),
# lone surrogates, line and paragraph separators, and marks that turn the direction of text.
OBEYED = "\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_NOT_SHOWN = re.compile(f"[{OBEYED}]")
_NOT_SHOWN_IN_LINES = re.compile(f"(?![\t\n])[{OBEYED}]")


class AgiqaError(Exception):
    """A failure the user can act on; the command line prints it without a traceback, exit 1."""


class UsageError(AgiqaError):
    """Arguments that do not go together, whatever the files hold; exit 2."""


def some(items: Sequence[str], limit: int = 5) -> str:
    """A short list for a message: the first few, and how many more there are."""
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more} more" if more > 0 else "")


def one_line(error: Exception) -> str:
    """Another library's message, for the inside of ours."""
    return " ".join(str(error).split())[:300].rstrip(".")


def printable(text: object, lines: bool = False) -> str:
    r"""Text from outside as any terminal, log or page may take it: what it obeys is escaped.

    An escape character becomes the six characters `\u001b`, which JSON reads back; a byte of a
    file's name that is no UTF-8 becomes `\udcff` likewise. `lines` keeps tabs and newlines.
    """
    pattern = _NOT_SHOWN_IN_LINES if lines else _NOT_SHOWN
    return pattern.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


def quoted(text: str) -> str:
    """A name for a message: in quotes where its ends, its commas or what it hides would mislead."""
    plain = text == text.strip() and text.isprintable() and "," not in text
    return text if plain else repr(text)
