"""Of two things of one name on a command line none is taken."""

from collections.abc import Iterator

import click
import pytest

from agiqa.cli import main
from agiqa.cli.lazy import Command, LazyGroup
from kit.command import agiqa


def commands(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command)
        else:
            yield command


def test_every_command_refuses_an_option_given_twice() -> None:
    assert isinstance(main, LazyGroup)
    assert not [command.name for command in commands(main) if not isinstance(command, Command)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fit a --target quality --target quality", "'quality' is given twice"),
        ("fit a --preset light --preset paper", "--preset is given 2 times: give it once"),
        ("fit a --set fit.lr=1 --set fit.lr=2", "it would undo --set fit.lr=1"),
        ("fit a --preset paper --set fit.preset=light", "it would undo --set fit.preset=light"),
        ("cross runs/a runs/a/", "'runs/a' is given twice"),
        ("cross runs/a --on b --on b", "'b' is given twice"),
        ("compare runs/a runs/b runs/a/", "'runs/a' is given twice"),
        ("table runs/a ./runs/a", "'runs/a' is given twice"),
        ("table --published --no-published", "--published and --no-published is given 2 times"),
        ("prepare a --from b --from c", "--from is given 2 times"),
        ("prepare a --kind csv --kind csv", "--kind is given 2 times"),
        ("splits show a --cache b --cache c", "--cache is given 2 times"),
    ],
)
def test_given_twice(line: str, message: str) -> None:
    result = agiqa(*line.split(), status=None)
    assert message in result.stderr
    assert result.exit_code in (1, 2)
    assert result.stderr.count("Error: ") == 1


def test_a_flag_twice_is_one() -> None:
    agiqa("datasets", "--json", "--json")
