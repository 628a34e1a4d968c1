"""Errors meant for the user: one line that says what was expected, what was found, what to do."""


class AgiqaError(Exception):
    """A failure the user can act on; the command line prints it without a traceback, exit 1."""
