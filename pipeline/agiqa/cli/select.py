"""`agiqa select`: images chosen by their scores."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import FILE, OUT_FOLDER, out_file
from agiqa.cli.output import echo
from agiqa.core.errors import UsageError


class Percent(click.ParamType[float]):
    """A share such as 10%, or .1; a bare 1 could be 1 % or all."""

    name = "share"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Give the share, over 0 and up to 1."""
        text = str(value).strip()
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = -1.0
        if text.endswith("%") and 0 < number <= 100:
            return number / 100
        if not 0 < number < 1:
            self.fail(f"expected a share such as 1% or 0.01, found {text!r}.", param, ctx)
        return number


@click.command("select", cls=Command)
@click.argument("scores", type=FILE)
@click.option("--best", type=click.IntRange(1), metavar="N", help="The N best of each group.")
@click.option("--worst", type=click.IntRange(1), metavar="N", help="The N worst of each group.")
@click.option(
    "--worst-share", type=Percent(), metavar="10%", help="That part of each group, the worst."
)
@click.option("--above", type=float, metavar="SCORE", help="Those of this score or a higher one.")
@click.option("--below", type=float, metavar="SCORE", help="Those of a lower score.")
@click.option(
    "--group-by",
    default="",
    metavar="prompt|folder|COLUMN",
    help="A column of SCORES, or the folder of an image. Default: all are one group.",
)
@click.option("--copy-to", type=OUT_FOLDER, help="Copy the images into this folder.")
@click.option("--link-to", type=OUT_FOLDER, help="Link the images into this folder.")
@out_file("Write their rows as a CSV, instead of their names.")
def command(
    scores: Path,
    best: int | None,
    worst: int | None,
    worst_share: float | None,
    above: float | None,
    below: float | None,
    group_by: str,
    copy_to: Path | None,
    link_to: Path | None,
    out: Path | None,
) -> None:
    r"""Choose images by SCORES, a table that `agiqa score -o` wrote: their names, best first.

    \b
    agiqa select scores.csv --best 1 --group-by prompt --copy-to best/
    agiqa select scores.parquet --worst-share 10% | xargs -d '\n' rm
    agiqa select scores.csv --below 2.5 --link-to look-at-these/
    """
    from agiqa.core.spreadsheets import safe_cell
    from agiqa.core.whole_files import write_file
    from agiqa.runs.select import Choice, put_images, read_scores, select
    from agiqa.store.files import disk_errors

    if out is not None and out.suffix.lower() != ".csv":
        raise UsageError(f"-o {out}: expected a name that ends in .csv.")
    if out is not None and out.exists() and out.samefile(scores):
        raise UsageError(f"-o {out}: is the table of scores itself, which stays: choose another.")
    choice = Choice(group_by, best, worst, above, below, worst_share)
    if copy_to and link_to and copy_to.resolve() == link_to.resolve():
        raise UsageError("--copy-to and --link-to: expected two folders, found one.")
    selection = select(read_scores(scores), choice)
    if selection.empty:
        echo("No image is like that.", err=True)
        return
    for folder, link in ((copy_to, False), (link_to, True)):
        if folder is not None:
            with disk_errors("write", folder):
                placed = put_images(list(selection["image"]), folder, link)
            echo(f"{placed} in {folder}", err=True)
    if out is not None:
        text = selection.map(lambda cell: safe_cell(str(cell))).to_csv(index=False)
        with disk_errors("write", out):
            write_file(out, text.encode())
    elif copy_to is None and link_to is None:
        for image in selection["image"]:
            echo(image)
