"""`agiqa report`: a run as a page."""

from pathlib import Path

import click

from agiqa.cli.options import as_json, cache, show


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page. Default: RUN/report.html.",
)
@cache
@as_json
def command(run: Path, out: Path | None, cache: Path, as_json: bool) -> None:
    r"""Write one self-contained HTML page about an evaluated RUN.

    \b
    agiqa report runs/demo/grouped
    agiqa report runs/agiqa-3k/grouped -o agiqa-3k.html
    """
    from agiqa.checkpoints import load_provenance
    from agiqa.report import write_report

    dataset = cache / str(load_provenance(run)["dataset"])
    page = write_report(run, dataset, out or run / "report.html")
    show({"report": str(page)}, as_json)
