"""`agiqa score`: scores for new images."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import OUT_FILE, engine, image_prompt, out_file, remote_code, run_option
from agiqa.cli.output import echo
from agiqa.core.errors import AgiqaError
from agiqa.core.json_text import json_text
from agiqa.runs.score_notes import notes
from agiqa.views.ranking.score_files import STYLES, Scores, require_parquet, write_scores

if TYPE_CHECKING:
    from agiqa.data.images import BadImage
    from agiqa.runs.image_scorer import ImageScorer
    from agiqa.runs.score import Score
    from agiqa.runs.score_stream import ScoreRows
    from agiqa.runs.shards import ImageInput
    from agiqa.stage1.ray_cluster import RayCluster
    from agiqa.views.ranking.terminal import Picture

PAGES = (".html", ".htm")
FOREIGN = (".xlsx", *PAGES, ".md")  # other formats' names
SUFFIXES = {
    **{".csv": "csv", ".tsv": "tsv", ".txt": "table"},
    **{".json": "json", ".jsonl": "jsonl", ".parquet": "parquet"},
}  # of -o's name


def _page_name(_ctx: click.Context, _option: click.Parameter, html: Path | None) -> Path | None:
    if html is not None and html.suffix.lower() not in PAGES:
        raise click.UsageError(f"--html {html}: expected a name that ends in .html.")
    return html


@click.command("score", cls=Command)
@click.argument("images", nargs=-1, required=True)
@run_option(help="The run to score with. Default: the one that comes with agiqa.")
@click.option(
    "--scorer",
    "published",
    metavar="NAME|FILE",
    help="A published scorer instead of a run: q-align, q-realign-mini, vqascore, "
    "prompt-likelihood, or a YAML file.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(STYLES),
    help="How to write the scores. Default: what -o's name ends in (.csv, .tsv, .json, .jsonl, "
    ".parquet, .txt), else a table.",
)
@out_file("Write to a file. Without it, to the terminal or pipe.")
@click.option(
    "--image-column",
    default="",
    metavar="NAME",
    help="Of tables: the column of images. Default: image, path, file or the like.",
)
@click.option(
    "--prompt-column",
    default="",
    metavar="NAME",
    help="Of tables: the column of the texts that images were generated from. Default: prompt, "
    "caption or text.",
)
@click.option(
    "--keep", multiple=True, metavar="COLUMN", help="Write this column of tables, too. Repeatable."
)
@image_prompt
@remote_code
@engine
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out instead of stopping.")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the N best. Default: all; on a terminal, of many the best and the worst.",
)
@click.option(
    "--html",
    type=OUT_FILE,
    callback=_page_name,
    help="Write a page with all images, to sort and filter, as well.",
)
@click.option(
    "--thumbnails",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="In the table: where the terminal can show pictures, in half blocks elsewhere, or never.",
)
def command(
    images: tuple[str, ...],
    run: Path | None,
    published: str | None,
    style: str | None,
    out: Path | None,
    image_column: str,
    prompt_column: str,
    keep: tuple[str, ...],
    image_prompt: str | None,
    remote_code: str,
    engine: "RayCluster | None",
    skip_bad: bool,
    top: int | None,
    html: Path | None,
    thumbnails: str,
) -> None:
    r"""Score IMAGES, best first: files, folders, tables, shards, URLs.

    Patterns (`a/**/*.png`), lists of paths (.txt), tables (.csv, .tsv, .parquet) whose column of
    images holds paths or bytes, webdataset tars (`s-{00..12}.tar`), Arrow files of `datasets`, and
    any of them at a URL that fsspec knows. With -o, scores are kept as they come
    (`FILE.unfinished`): after a stop, the same command goes on.

    The score is on the scale of the MOS the run was trained on. The interval (low, high)
    holds the MOS of 90 % of images like those that the run learnt from; the disagreement is the
    score's standard deviation over the run's splits; the gate says how much each expert weighed.
    Off a terminal the table's columns are separated by tabs.

    Scores of images that the run was trained on are optimistic. They are marked (trained_on), and
    beside them stands what the splits say that had not seen them (held_out); quote that one.

    Without --run, a scorer that comes with agiqa says how people would rate the quality, as those
    of AGIQA-3K did; the first use fetches its model, 170 MB. A published scorer needs no ratings,
    too: a large multi-modality model is asked how good the image is, or whether it shows its
    prompt, and its answers' probabilities are the score.

    \b
    agiqa score pictures/
    agiqa score picture.png --run runs/agiqa-3k/grouped
    agiqa score pictures/ --run runs/agiqa-3k/grouped --format csv -o scores.csv
    agiqa score pictures/ --run runs/agiqa-3k/grouped --html ranking.html --top 5
    agiqa score pictures/ --run runs/agiqa-3k/grouped --engine ray --ray-address auto
    agiqa score corgi.png --run runs/agiqa-3k/match --image-prompt "a corgi on a skateboard"
    agiqa score pictures/ --scorer q-realign-mini --format csv -o scores.csv
    agiqa score 's3://bucket/shard-{000..099}.tar' --run runs/agiqa-3k/grouped -o scores.parquet
    """
    from agiqa.runs.create_scorer import create_scorer
    from agiqa.runs.image_inputs import read_inputs
    from agiqa.runs.score_stream import ScoreRows
    from agiqa.runs.shards import Columns
    from agiqa.views.ranking.terminal import pictures

    style = style_of(style, out)
    about = _about(run, published, images, image_prompt, keep)
    shows = style == "table" and out is None and sys.stdout.isatty()
    picture = pictures(thumbnails) if shows or thumbnails == "always" else None
    load = cache(lambda: create_scorer(run or published, None, remote_code, engine))
    given = read_inputs(images, Columns(image_column, prompt_column, keep))
    with ScoreRows(out, about) as rows:
        bad = _fill(rows, given, load, image_prompt, skip_bad, engine is not None)
        if html is not None:
            _write_page(rows, load(), html)
        if shows:
            _print(rows, load(), top, picture)
        else:
            _write(rows, bad, keep, top, load(), style, out)
        _say_what_is_missing(rows, bad, keep)
        rows.finish()


def _fill(
    rows: "ScoreRows",
    given: "Iterable[ImageInput]",
    load: "Callable[[], ImageScorer]",
    image_prompt: str | None,
    skip_bad: bool,
    on_cluster: bool,
) -> list["BadImage"]:
    """Score what is given into the rows, and list what is bad.

    Raises:
        AgiqaError: nothing is given, or bad images are not to be skipped, or there are no others.
    """
    from agiqa.runs.score_stream import CHUNK, CLUSTER_CHUNK, BadInputError, score_stream

    chunk = CLUSTER_CHUNK if on_cluster else CHUNK
    try:
        count = score_stream(
            given, load, rows, image_prompt=image_prompt, skip_bad=skip_bad, chunk=chunk
        )
    except BadInputError as error:
        raise _cannot_score(error.bad, error.count, "repair them", skip_bad) from error
    if not count:
        raise AgiqaError("No images to score.")
    bad = rows.bad()
    if bad and (not skip_bad or not len(rows)):
        kept = "the vectors of all others are kept: take another model for these"
        raise _cannot_score(bad, count, kept if len(rows) else "repair them", skip_bad)
    return bad


def _ranked(rows: "ScoreRows", most: int | None = None) -> "Iterator[Score]":
    """The scores of the rows, best first; `most` of them, None: all."""
    from agiqa.runs.score import Score

    return (Score(**content) for content in rows.ranked(most))


def _write_page(rows: "ScoreRows", scorer: "ImageScorer", html: Path) -> None:
    from agiqa.store.files import disk_errors
    from agiqa.views.ranking.page import write_gallery

    with disk_errors("write", html):
        write_gallery(list(_ranked(rows)), scorer.label, scorer.provenance, html)
    echo(f"Gallery: {html}", err=True)


def _print(
    rows: "ScoreRows", scorer: "ImageScorer", top: int | None, picture: "Picture | None"
) -> None:
    from rich.console import Console

    from agiqa.views.ranking.terminal import print_ranking

    console = Console(highlight=False)
    print_ranking(list(_ranked(rows)), scorer.provenance, console, top, picture)


def _write(
    rows: "ScoreRows",
    bad: Sequence["BadImage"],
    keep: Sequence[str],
    top: int | None,
    scorer: "ImageScorer",
    style: str,
    out: Path | None,
) -> None:
    """Write scores to a file, or to standard output, whose encoding may be another than UTF-8."""
    from agiqa.core.whole_files import whole_file
    from agiqa.store.files import disk_errors

    columns = [*(["prompt"] if rows.has_values("prompt") else []), *keep]
    scores = Scores(partial(_ranked, rows, top), bad, list(dict.fromkeys(columns)))
    if out is not None:
        with disk_errors("write", out), whole_file(out) as file:
            write_scores(scores, scorer, style, file)
    else:
        text = io.BytesIO()
        write_scores(scores, scorer, style, text)
        encoding = sys.stdout.encoding or "utf-8"
        plain = text.getvalue().decode().encode(encoding, "backslashreplace").decode(encoding)
        echo(plain.replace("\r\n", "\n"), nl=False)
    for note in notes(_ranked(rows), scorer.provenance):
        echo(note, err=True)


def _say_what_is_missing(rows: "ScoreRows", bad: Sequence["BadImage"], keep: Sequence[str]) -> None:
    for image in bad:
        echo(f"Skipped {image.path}: {image.reason}", err=True)
    for column in keep:
        if not rows.has_values(column):
            echo(f"--keep {column}: no image came with anything in that column", err=True)


def _about(run: Path | None, published: str | None, *options: object) -> str:
    """Check the run or the scorer before any image is read, and say which it is, and the options.

    Raises:
        click.UsageError: both.
        AgiqaError: it is none.
    """
    from agiqa.runs.files import load_provenance
    from agiqa.runs.lmm_scorer import read_scorer
    from agiqa.runs.score import Score, default_run

    if run is not None and published is not None:
        raise click.UsageError("Give --run FOLDER or --scorer NAME, not both.")
    if published is not None:
        about = repr(read_scorer(published))
    else:
        about = json_text(load_provenance(run or default_run()))
    return json_text([about, *options, [field.name for field in fields(Score)]])


def style_of(style: str | None, out: Path | None) -> str:
    """The format asked for, or the one that the name of the file says.

    Raises:
        click.UsageError: the name says none that is written here, or another than --format; or
            there is no file for a format that is none for a terminal.
        AgiqaError: Parquet without pyarrow.
    """
    if out is None:
        if style == "parquet":
            raise click.UsageError("--format parquet needs a file: -o scores.parquet.")
        return style or "table"
    named = SUFFIXES.get(out.suffix.lower())
    if named is None and (style is None or out.suffix.lower() in FOREIGN):
        hint = "--html writes a page" if out.suffix.lower() in PAGES else ""
        raise click.UsageError(
            f"-o {out}: expected a name that ends in {', '.join(SUFFIXES)}"
            + (f"; {hint}." if hint else ", or --format with a name of another kind.")
        )
    if style is not None and named is not None and named != style:
        raise click.UsageError(f"-o {out}: a name of {named}, but --format {style}: choose one.")
    if "parquet" in (style, named):
        require_parquet()
    return style or str(named)


def _cannot_score(bad: Sequence["BadImage"], count: int, advice: str, skip_bad: bool) -> AgiqaError:
    """One line for the first few; the others are listed before it."""
    for image in bad[3:]:
        echo(f"{image.path}: {image.reason}", err=True)
    some = "; ".join(f"{image.path} {image.reason}" for image in bad[:3])
    return AgiqaError(
        f"{len(bad)} of {count} images cannot be scored: {some}; {advice}"
        + ("" if skip_bad else ", or leave them out with --skip-bad")
    )
