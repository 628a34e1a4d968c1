"""`agiqa score`: scores for new images."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from agiqa.cli.lines import echo
from agiqa.cli.options import remote_code
from agiqa.cli.ranking import columns, kind, print_ranking, row, write_plain
from agiqa.cli.terminal_pictures import MODES, pictures
from agiqa.errors import AgiqaError

if TYPE_CHECKING:
    from agiqa.images import BadImage
    from agiqa.scoring import Score, Scorer


@click.command("score")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--run",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The run to score with.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="How to print the scores.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead."
)
@click.option(
    "--image-prompt",
    metavar="TEXT",
    help="The text that IMAGES were generated from, for runs whose prompt set asks for it.",
)
@remote_code
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out instead of stopping.")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the N best. Default: all; on a terminal, of many the best and the worst.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page with all images, to sort and filter, as well.",
)
@click.option(
    "--thumbnails",
    type=click.Choice(MODES),
    default="auto",
    show_default=True,
    help="In the table: where the terminal can show pictures, in half blocks elsewhere, or never.",
)
def command(
    images: tuple[Path, ...],
    run: Path,
    style: str,
    out: Path | None,
    image_prompt: str | None,
    remote_code: str,
    skip_bad: bool,
    top: int | None,
    html: Path | None,
    thumbnails: str,
) -> None:
    r"""Score IMAGES, files or folders, best first.

    The score is on the scale of the MOS the run was trained on; the spread is its standard
    deviation over the run's splits; the gate says how much each expert weighed. Off a terminal the
    table's columns are separated by tabs.

    \b
    agiqa score picture.png --run runs/agiqa-3k/grouped
    agiqa score pictures/ --run runs/agiqa-3k/grouped --format csv -o scores.csv
    agiqa score pictures/ --run runs/agiqa-3k/grouped --html ranking.html --top 5
    agiqa score corgi.png --run runs/agiqa-3k/match --image-prompt "a corgi on a skateboard"
    """
    from agiqa.checkpoints import load_provenance
    from agiqa.feature_store.durable import disk_errors, write_file
    from agiqa.images import check_images
    from agiqa.scoring import load_scorer

    load_provenance(run)  # a wrong run is said before the images are read
    shows = style == "table" and out is None and sys.stdout.isatty()
    picture = pictures(thumbnails) if shows or thumbnails == "always" else None
    files = files_of(images)
    bad = check_images(files)
    if bad and (not skip_bad or len(bad) == len(files)):
        for each in bad[3:]:
            echo(f"{each.path}: {each.reason}", err=True)
        some = "; ".join(f"{each.path} {each.reason}" for each in bad[:3])
        raise AgiqaError(
            f"{len(bad)} of {len(files)} images cannot be scored: {some}. "
            "Repair them, or leave them out with --skip-bad."
        )
    lost = {each.path for each in bad}
    scorer = load_scorer(run, remote_code=remote_code)
    kept = [file for file in files if str(file) not in lost]
    scores = scorer(kept, None if image_prompt is None else [image_prompt] * len(kept))
    scores.sort(key=lambda score: -score.score)
    if html is not None:
        from agiqa.gallery import write_gallery

        with disk_errors("write", html):
            write_gallery(scores, scorer.run.folder, scorer.run.provenance, html)
        echo(f"Gallery: {html}", err=True)
    if out is not None:
        text = io.StringIO(newline="")
        _write(scores[:top], bad, scorer, style, text)
        with disk_errors("write", out):
            write_file(out, text.getvalue().encode())
    elif shows:
        from rich.console import Console

        print_ranking(scores, scorer.run.provenance, Console(highlight=False), top, picture)
    else:
        _write(scores[:top], bad, scorer, style, sys.stdout)
        if style == "table":
            echo(f"Scores: {kind(scorer.run.provenance)}.", err=True)
    for each in bad:
        echo(f"Skipped {each.path}: {each.reason}", err=True)


def files_of(images: Sequence[Path]) -> list[Path]:
    """Files as given, folders as the images in them; each once."""
    from agiqa.datasets.folder import find_images

    files: dict[Path, None] = {}
    for image in images:
        if image.is_dir():
            files |= dict.fromkeys(find_images(image))
        elif image.exists():
            files[image] = None
        else:
            raise AgiqaError(f"{image}: no such file or folder.")
    return list(files)


def _write(
    scores: Sequence["Score"],
    bad: Sequence["BadImage"],
    scorer: "Scorer",
    style: str,
    stream: TextIO,
) -> None:
    low, high = scorer.scale
    if style == "json":
        content: dict[str, Any] = {
            "run": str(scorer.run.folder),
            "dataset": scorer.run.provenance["dataset"],
            "target": scorer.run.provenance["target"],
            "synthetic": scorer.run.provenance["synthetic"],
            "scale": {"low": low, "high": high},
            "scores": [_plain(score) for score in scores],
            "skipped": [vars(each) for each in bad],
        }
        from agiqa.json_text import json_text

        stream.write(json_text(content, indent=2) + "\n")
    elif style == "csv":
        writer = csv.writer(stream)
        writer.writerow(columns(scorer.run.provenance))
        writer.writerows(row(score, scorer.run.provenance, digits=4) for score in scores)
    else:
        write_plain(scores, scorer.run.provenance, stream)


def _plain(score: "Score") -> dict[str, Any]:
    """Without the quality map: that is for Python."""
    return {key: value for key, value in vars(score).items() if key != "quality_map"}
