"""`agiqa import-checkpoint`: the authors' weights as a run."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import (
    FILE,
    Settings,
    as_json,
    cache_or_url,
    replace_run,
    run_argument,
    settings,
)
from agiqa.cli.output import show


@click.command("import-checkpoint", cls=Command)
@click.argument("file", type=FILE)
@run_argument
@click.option(
    "--dataset",
    required=True,
    help="The prepared data set it was trained on; its paper split says what is tested.",
)
@click.option("--target", help="MOS column it predicts. Default: fit.target in the settings.")
@replace_run
@cache_or_url
@settings
@as_json
def command(
    file: Path,
    run: Path,
    dataset: str,
    target: str | None,
    replace: bool,
    cache: Path | str,
    settings: Settings,
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
    result = {
        "run": str(imported.folder),
        "semantic": stores["semantic"]["extractor"],
        "next": f"agiqa evaluate {imported.folder}",
    }
    show(result, as_json)
