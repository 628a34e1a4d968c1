"""`agiqa report`: a run as a page."""

from pathlib import Path

import click

from agiqa.cli.options import as_json, cache_or_url, show


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page. Default: RUN/report.html.",
)
@cache_or_url
@as_json
def command(run: Path, out: Path | None, cache: Path | str, as_json: bool) -> None:
    r"""Write one self-contained HTML page about an evaluated RUN.

    \b
    agiqa report runs/demo/grouped
    agiqa report runs/agiqa-3k/grouped -o agiqa-3k.html
    """
    from agiqa.cache_folder import at_hand
    from agiqa.checkpoints import load_provenance
    from agiqa.report import write_report

    dataset = str(load_provenance(run)["dataset"])
    page = write_report(run, at_hand(cache, dataset, ()) / dataset, out or run / "report.html")
    show({"report": str(page)}, as_json)
