"""The page of all commands, out of click's own help, so that it is never out of date."""

import re
from collections.abc import Iterator

import click


def command_pages() -> str:
    """Every command with usage, help, examples, arguments and options, as Markdown."""
    from agiqa.cli import main

    parts = ["# Commands", "What `agiqa COMMAND --help` says, in the order of the work."]
    parts += _help(main)
    parts += _options(main, click.Context(main, info_name="agiqa"))
    for name, command in _commands(main, "agiqa"):
        level = "##" if name.count(" ") == 1 else "###"
        context = click.Context(command, info_name=name)
        parts.append(f"{level} `{name}`")
        parts.append(f"```text\n{name} {' '.join(command.collect_usage_pieces(context))}\n```")
        parts += _help(command)
        parts += _options(command, context)
    return "\n\n".join(parts) + "\n"


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")


def _help(command: click.Command) -> list[str]:
    """Paragraphs as prose; those that keep their lines as a block."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", (command.help or "").strip()):
        first, _, rest = paragraph.partition("\n")
        if first.strip() == "\b":
            lines = "\n".join(line.strip() for line in rest.splitlines())
            parts.append(f"```sh\n{lines}\n```")
        else:
            parts.append(_escaped(" ".join(paragraph.split())))
    return parts


def _options(command: click.Command, context: click.Context) -> list[str]:
    rows = []
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            names, text = record
            rows.append(f"| `{names}` | {_escaped(' '.join(text.split()))} |")
    return ["\n".join(["| option | |", "|---|---|", *rows])] if rows else []


def _escaped(text: str) -> str:
    """Markdown's and HTML's signs taken literally."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
    return re.sub(r"([*_\[\]`])", r"\\\1", text)
