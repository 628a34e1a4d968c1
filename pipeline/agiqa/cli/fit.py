"""`agiqa fit`: stage 2, training; and `import-checkpoint`: the authors' weights as a run."""

import time
from pathlib import Path
from typing import get_args

import click

from agiqa.cli import options
from agiqa.cli.lazy import Command
from agiqa.cli.output import show
from agiqa.core.params import Preset


@click.command("fit", cls=Command)
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@click.option(
    "--preset", type=click.Choice(get_args(Preset)), help="Default: fit.preset in the settings."
)
@click.option(
    "--protocol",
    metavar="NAME",
    help="auto, grouped, random, paper, official, or an imported one (agiqa splits import). "
    "Default: fit.protocol in the settings.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    callback=options.different,
    help="MOS column to predict: quality, alignment ... Several share the experts. "
    "Default: fit.target in the settings.",
)
@click.option(
    "-o",
    "--out",
    type=options.OUT_FOLDER,
    help="Folder of the run. Default: runs/DATASET/PROTOCOL; of several data sets "
    "runs/A+B/PROTOCOL, of an --extractor runs/DATASET/NAME/PROTOCOL.",
)
@options.extractor
@options.replace_run
@options.cache_or_url
@options.settings
@options.as_json
def command(
    datasets: tuple[str, ...],
    preset: str | None,
    protocol: str | None,
    targets: tuple[str, ...],
    out: Path | None,
    extractor: str,
    replace: bool,
    cache: Path | str,
    settings: options.Settings,
    as_json: bool,
) -> None:
    r"""Train on DATASET's cached vectors: every split at once, baselines beside.

    The validation side picks epochs and penalties; the test side is left to `agiqa evaluate`.
    Several DATASETs train together, each on the scale of its own raters; new images are scored on
    the first one's.

    The preset tuned also trains the visual backbone's last blocks, from the tokens that `agiqa
    extract --set visual.tokens=N` keeps. The presets paper and paper-fixed train MA-AGIQA's own
    network on the images and the semantic vectors. Both go from split to split and want a GPU; a
    stopped fit goes on after its last epoch when started again. Several GPUs: accelerate launch
    .venv/bin/agiqa fit ...

    \b
    agiqa fit demo
    agiqa fit agiqa-3k --protocol random --target alignment -o runs/agiqa-3k/alignment
    agiqa fit agiqa-3k --target quality --target alignment -o runs/agiqa-3k/both
    agiqa fit agiqa-3k aigciqa2023
    agiqa fit agiqa-3k --preset paper --protocol paper -o runs/agiqa-3k/ma-agiqa
    agiqa fit agiqa-3k --preset tuned -o runs/agiqa-3k/tuned
    agiqa fit agiqa-3k --extractor qwen
    agiqa fit agiqa-3k --set fit.gate=linear --set fit.lr=0.001 -o runs/agiqa-3k/linear-gate
    """
    from agiqa.runs.fit import fit

    given = {"preset": preset, "protocol": protocol, "target": ",".join(targets)}
    params = settings.read(*(f"fit.{key}={value}" for key, value in given.items() if value))
    started = time.monotonic()
    run = fit(datasets, params=params, extractor=extractor, out=out, replace=replace, cache=cache)
    if run is None:  # another process of this fit wrote it
        return
    result = {
        "run": str(run.folder),
        "target": ", ".join(run.provenance["targets"]),
        "protocol": run.provenance["protocol"],
        "splits": len(run.provenance["seeds"]),
        "seconds": round(time.monotonic() - started, 1),
        "next": f"agiqa evaluate {run.folder}",
    }
    show(result, as_json)


@click.command("import-checkpoint", cls=Command)
@click.argument("file", type=options.FILE)
@options.run_argument
@click.option(
    "--dataset",
    required=True,
    help="The prepared data set it was trained on; its paper split says what is tested.",
)
@click.option("--target", help="MOS column it predicts. Default: fit.target in the settings.")
@options.replace_run
@options.cache_or_url
@options.settings
@options.as_json
def import_checkpoint(
    file: Path,
    run: Path,
    dataset: str,
    target: str | None,
    replace: bool,
    cache: Path | str,
    settings: options.Settings,
    as_json: bool,
) -> None:
    r"""Make RUN out of FILE, a .pt that the authors' code of MA-AGIQA wrote.

    The semantic vectors of DATASET must be there (agiqa extract): the run remembers how they were
    made, and evaluate and score refuse others.

    \b
    agiqa import-checkpoint AGIQA_3k.pt --dataset agiqa-3k runs/agiqa-3k/authors
    agiqa evaluate runs/agiqa-3k/authors
    """
    from agiqa.runs.fit import import_run

    params = settings.read(*((f"fit.target={target}",) if target else ()))
    imported = import_run(file, dataset, cache, params, run, replace)
    stores = imported.provenance["stores"]
    result = {"run": str(imported.folder), "semantic": stores["semantic"]["extractor"]}
    show(result | {"next": f"agiqa evaluate {imported.folder}"}, as_json)
