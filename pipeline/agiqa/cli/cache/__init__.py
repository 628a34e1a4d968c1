"""`agiqa cache`: care for the ledger and the packs; commands load when they are called."""

import click

from agiqa.cli.lazy import LazyGroup

# Command: its module and name there, and the line that `agiqa cache --help` shows.
COMMANDS = {
    "ls": ("cache.stores:ls", "Stores with size, rows, fingerprint and the runs that used them."),
    "show": ("cache.stores:show", "Everything about one store."),
    "diff": ("cache.stores:diff", "Why a store would be computed again, field by field."),
    "verify": (
        "cache.upkeep:verify",
        "Check every checksum and number; --repair drops what is bad.",
    ),
    "gc": ("cache.upkeep:gc", "Free the space of rows and stores that nothing uses."),
    "merge": ("cache.files:merge", "Take in rows of other ledgers or packs."),
    "convert": ("cache.files:convert", "A pack in the other format, Zarr or HDF5."),
    "export": ("cache.files:export", "A pack as safetensors or npz, for people without agiqa."),
    "import-pt": (
        "cache.files:import_pt",
        "Features that MA-AGIQA's reference code saved as .pt files.",
    ),
}


@click.group("cache", cls=LazyGroup, loads=COMMANDS)
def command() -> None:
    r"""Care for the stores of vectors.

    The ledger ($AGIQA_STORE, or the user's cache folder) holds every vector ever computed; packs in
    cache/ are made from it.

    \b
    agiqa cache ls
    agiqa cache diff cache/demo/nano.zarr
    agiqa cache verify --repair
    """
