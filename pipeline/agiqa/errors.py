"""Errors meant for the user: one line that says what was expected, what was found, what to do."""

from collections.abc import Sequence


class AgiqaError(Exception):
    """A failure the user can act on; the command line prints it without a traceback, exit 1."""


def some(items: Sequence[str], limit: int = 5) -> str:
    """A short list for a message: the first few, and how many more there are."""
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more} more" if more > 0 else "")


def one_line(error: Exception) -> str:
    """Another library's message, for the inside of ours."""
    return " ".join(str(error).split())[:300].rstrip(".")
