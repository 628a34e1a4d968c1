"""`agiqa import-checkpoint`: the authors' weights as a run."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import as_json, cache_or_url, read_settings, settings, show


@click.command("import-checkpoint", cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--dataset",
    required=True,
    help="The prepared data set it was trained on; its paper split says what is tested.",
)
@click.option("--target", help="MOS column it predicts. Default: fit.target in the settings.")
@click.option(
    "--replace",
    is_flag=True,
    help="Overwrite a run in that folder, and all that was made from it: results, explanations, "
    "report.",
)
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
    params_file: Path | None,
    overrides: tuple[str, ...],
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

    extra = (f"fit.target={target}",) if target else ()
    params = read_settings(params_file, (*overrides, *extra))
    made = import_run(file, dataset, cache, params, run, replace)
    stores = made.provenance["stores"]
    result = {
        "run": str(made.folder),
        "semantic": stores["semantic"]["extractor"],
        "next": f"agiqa evaluate {made.folder}",
    }
    show(result, as_json)
