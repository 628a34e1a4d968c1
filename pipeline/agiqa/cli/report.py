"""`agiqa report`: a run as a page."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import FOLDER, as_json, cache_or_url, out_file, runs_argument
from agiqa.cli.output import show


@click.command("report", cls=Command)
@runs_argument(type=FOLDER)
@out_file("The page. Default, of a single run: RUN/report.html.")
@cache_or_url
@as_json
def command(runs: tuple[Path, ...], out: Path | None, cache: Path | str, as_json: bool) -> None:
    r"""Write one self-contained, interactive HTML page about an evaluated RUN.

    It opens without a network. Several RUNs stand side by side, with paired differences, if they
    were tested on the same splits. Without -o the figures are also written to RUN/plots, for
    `dvc plots`.

    \b
    agiqa report runs/demo/grouped
    agiqa report runs/agiqa-3k/grouped -o agiqa-3k.html
    agiqa report runs/agiqa-3k/grouped runs/agiqa-3k/linear-gate -o both.html
    agiqa report runs/agiqa-3k/both/targets/align -o alignment.html
    """
    from agiqa.runs.files import provenance_of
    from agiqa.store.packs.pack import at_hand
    from agiqa.views.report import write_plots, write_report

    if len(runs) > 1 and out is None:
        raise click.UsageError("Several runs need -o: none of them is the page's place.")
    about = provenance_of(runs[0])
    if out is None and "published" in about:
        raise click.UsageError("A published RUN stays as it is: say where to write, -o FILE.")
    name = str(about["dataset"])
    dataset = at_hand(cache, name, ()) / name
    page = write_report(runs, dataset, out or runs[0] / "report.html")
    result = {"report": str(page)}
    if out is None:
        result["plots"] = str(write_plots(runs[0], dataset))
    show(result, as_json)
