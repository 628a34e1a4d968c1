"""`agiqa` as a user calls it, in the test's own process."""

from click.testing import CliRunner, Result

from agiqa.cli import main


def agiqa(*words: object, status: int | None = 0) -> Result:
    """Run it, and hold it to its exit status, unless that is None."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert status in (None, result.exit_code), result.output
    return result


def one_line(result: Result, *parts: str) -> str:
    """The error of a user: exit 1, one line without a traceback, which says these things."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert (result.exit_code, len(errors)) == (1, 1), result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in errors[0]
    return errors[0]


def refusal(*words: object) -> str:
    """The one line with which it refuses."""
    return one_line(agiqa(*words, status=1))
