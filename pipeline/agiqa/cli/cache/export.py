"""`agiqa cache export`: a pack for people without agiqa."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import OUT_FILE, as_json, pack_at_hand
from agiqa.cli.output import show


@click.command("export", cls=Command)
@click.argument("pack", callback=pack_at_hand)
@click.option(
    "-o",
    "--out",
    required=True,
    type=OUT_FILE,
    help="The file to write: *.safetensors or *.npz.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@as_json
def command(pack: Path, out: Path, force: bool, as_json: bool) -> None:
    r"""Write PACK (.zarr, .h5; a path or a URL) as one file that numpy or safetensors read.

    One array a vector, named vectors/<name>; image_id; path, where the images table lies beside
    the pack; fingerprints as JSON in the metadata. No pickles.

    \b
    agiqa cache export cache/demo/nano.zarr -o nano.npz
    agiqa cache export cache/demo/nano.h5 -o nano.safetensors
    """
    from agiqa.store.upkeep.export import export

    names = export(pack, out, force)
    show({"file": str(out), "arrays": list(names) if as_json else ", ".join(names)}, as_json)
