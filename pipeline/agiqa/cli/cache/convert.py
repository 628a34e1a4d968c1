"""`agiqa cache convert`: a pack in the other format."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import as_json, pack_at_hand
from agiqa.cli.output import echo, show


@click.command("convert", cls=Command)
@click.argument("pack", callback=pack_at_hand)
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace another pack that TARGET holds.")
@as_json
def command(pack: Path, target: Path, force: bool, as_json: bool) -> None:
    r"""Write PACK as TARGET in the other format, which its suffix names: .zarr or .h5.

    Nothing is lost: converted back, it is the same bytes again. PACK, which may be a URL, stays.
    The answers' pack beside it (<name>-answers) is a pack of its own.

    \b
    agiqa cache convert cache/demo/nano.zarr cache/demo/nano.h5
    agiqa cache convert --force nano.h5 nano.zarr
    """
    from agiqa.store import convert_pack

    written = convert_pack(pack, target, force)
    result = {"pack": str(pack), "target": str(target), "written": written}
    if as_json:
        show(result, as_json)
    else:
        echo(f"{target}: " + ("written" if written else "already the same as " + str(pack)))
