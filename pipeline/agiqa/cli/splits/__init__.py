"""`agiqa splits`: split files, ours and other people's; commands load when they are called."""

import click

from agiqa.cli.lazy import LazyGroup

# Command: its module and name there, and the line that `agiqa splits --help` shows.
COMMANDS = {
    "show": (
        "splits.files:list_",
        "The protocols of a data set: sizes, and what they leak.",
    ),
    "import": ("splits.files:import_", "A CSV of names and sides as a protocol of its own."),
    "export": ("splits.files:export", "A protocol as a CSV that others can use."),
    "audit": ("splits.audit", "Shared prompts, files and near-identical images across sides."),
}


@click.group("splits", cls=LazyGroup, loads=COMMANDS)
def command() -> None:
    r"""Split files: who trains, who selects, who is tested.

    `agiqa prepare` writes one for each protocol; results name theirs.

    \b
    agiqa splits show agiqa-3k
    agiqa splits import agiqa-3k smith2024.csv --protocol smith2024
    agiqa splits audit agiqa-3k
    """
