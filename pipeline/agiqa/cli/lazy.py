"""Commands, and a group of them that imports a command's module only when it is called."""

import importlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import click


class Command(click.Command):
    """A command that refuses an option given twice, of which click would take the last."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, once no option is given twice."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for option, times in Counter(order).items():
            if not isinstance(option, click.Option) or option.multiple or option.count:
                continue
            if times > 1 and not (option.is_flag and not option.secondary_opts):
                name = " and ".join([option.opts[-1], *option.secondary_opts])
                raise click.UsageError(f"{name} is given {times} times: give it once.", ctx)
        return super().parse_args(ctx, args)


class LazyGroup(click.Group):
    """Its commands are known by name and line alone, so that help loads none of them."""

    def __init__(self, *args: Any, loads: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        """Take `loads`: for each command its `module[:name]` in agiqa.cli and its line of help."""
        super().__init__(*args, **kwargs)
        self.loads = loads

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of the work."""
        return list(self.loads)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module, whose `command` it is."""
        if cmd_name not in self.loads:
            return None
        module, _, name = self.loads[cmd_name][0].partition(":")
        loaded = importlib.import_module(f"agiqa.cli.{module}")
        command: click.Command = getattr(loaded, name or "command")
        keep_lines(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.loads.items()])


def keep_lines(command: click.Command) -> None:
    r"""Make `\b` in a raw docstring click's own sign, so that a paragraph keeps its lines."""
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    for inner in getattr(command, "commands", {}).values():
        keep_lines(inner)
