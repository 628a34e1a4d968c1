"""`agiqa score`: scores for new images."""

import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import ANY, FILE, FOLDER, engine, image_prompt, out_file, remote_code
from agiqa.cli.output import echo
from agiqa.core.errors import AgiqaError, printable
from agiqa.runs.score_notes import notes
from agiqa.views.ranking.terminal import LAYOUTS, print_ranking, write_rows
from agiqa.views.ranking.terminal_pictures import MODES, pictures

if TYPE_CHECKING:
    from agiqa.data.images import BadImage
    from agiqa.runs.image_scorer import ImageScorer
    from agiqa.runs.score import Score
    from agiqa.stage1.ray_cluster import RayCluster

ADDRESS = re.compile(r"^([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # https, s3 …; no drive letter
FOREIGN = (".parquet", ".xlsx", ".html", ".htm", ".jsonl", ".md")  # other formats' names
SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".txt": "table", ".json": "json"}  # of -o's name


@click.command("score", cls=Command)
@click.argument("images", nargs=-1, required=True, type=ANY)
@click.option("--run", type=FOLDER, help="The run to score with.")
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
    type=click.Choice(["table", "csv", "tsv", "json"]),
    help="How to write the scores. Default: what -o's name ends in (.csv, .tsv, .json, .txt), "
    "else a table.",
)
@out_file("Write to a file instead.")
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
    type=FILE,
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
    run: Path | None,
    published: str | None,
    style: str | None,
    out: Path | None,
    image_prompt: str | None,
    remote_code: str,
    engine: "RayCluster | None",
    skip_bad: bool,
    top: int | None,
    html: Path | None,
    thumbnails: str,
) -> None:
    r"""Score IMAGES, files or folders, best first.

    The score is on the scale of the MOS the run was trained on; the spread is its standard
    deviation over the run's splits; the gate says how much each expert weighed. Off a terminal the
    table's columns are separated by tabs.

    Scores of images that the run was trained on are optimistic. They are marked (trained_on), and
    beside them stands what the splits say that had not seen them (held_out); quote that one.

    A published scorer needs no run and no ratings: a large multi-modality model is asked how good
    the image is, or whether it shows its prompt, and its answers' probabilities are the score.

    \b
    agiqa score picture.png --run runs/agiqa-3k/grouped
    agiqa score pictures/ --run runs/agiqa-3k/grouped --format csv -o scores.csv
    agiqa score pictures/ --run runs/agiqa-3k/grouped --html ranking.html --top 5
    agiqa score pictures/ --run runs/agiqa-3k/grouped --engine ray --ray-address auto
    agiqa score corgi.png --run runs/agiqa-3k/match --image-prompt "a corgi on a skateboard"
    agiqa score pictures/ --scorer q-realign-mini --format csv -o scores.csv
    """
    from agiqa.core.whole_files import write_file
    from agiqa.data.images import check_images
    from agiqa.store.durable import disk_errors

    style = style_of(style, out)
    _require_one_scorer(run, published)
    shows = style == "table" and out is None and sys.stdout.isatty()
    picture = pictures(thumbnails) if shows or thumbnails == "always" else None
    files = files_of(images)
    bad = check_images(files)
    lost = {image.path for image in bad}
    kept = [file for file in files if printable(file) not in lost]
    if bad and (not skip_bad or not kept):
        raise _cannot_score(bad, len(files), "Repair them")
    scorer = _load(run, published, remote_code, engine)
    prompts = None if image_prompt is None else [image_prompt] * len(kept)
    scores, refused = scorer.score_good(kept, prompts)
    if refused and (not skip_bad or not scores):
        raise _cannot_score(
            refused, len(files), "The vectors of all others are kept: take another model for these"
        )
    bad += refused
    scores.sort(key=lambda score: -score.score)
    if html is not None:
        from agiqa.views.ranking import write_gallery

        with disk_errors("write", html):
            write_gallery(scores, Path(scorer.label), scorer.provenance, html)
        echo(f"Gallery: {html}", err=True)
    if out is not None:
        text = io.StringIO(newline="")
        _write(scores[:top], bad, scorer, style, text)
        with disk_errors("write", out):
            write_file(out, text.getvalue().encode())
    elif shows:
        from rich.console import Console

        print_ranking(scores, scorer.provenance, Console(highlight=False), top, picture)
    else:
        _write(scores[:top], bad, scorer, style, sys.stdout)
    if not shows:
        for note in notes(scores, scorer.provenance):
            echo(note, err=True)
    for image in bad:
        echo(f"Skipped {image.path}: {image.reason}", err=True)


def _require_one_scorer(run: Path | None, published: str | None) -> None:
    """Check the run or the scorer before any image is read.

    Raises:
        click.UsageError: neither or both.
        AgiqaError: it is none.
    """
    from agiqa.runs.files import load_provenance
    from agiqa.runs.scorer_file import read_scorer

    if run is not None and published is None:
        load_provenance(run)
    elif run is None and published is not None:
        read_scorer(published)
    else:
        raise click.UsageError("Give --run FOLDER or --scorer NAME, one of the two.")


def _load(
    run: Path | None, published: str | None, remote_code: str, engine: "RayCluster | None"
) -> "ImageScorer":
    from agiqa.runs.lmm_scorer import load_lmm_scorer
    from agiqa.runs.score import load_scorer

    if run is not None:
        return load_scorer(run, remote_code=remote_code, engine=engine)
    return load_lmm_scorer(str(published), remote_code=remote_code, engine=engine)


def files_of(images: Sequence[Path]) -> list[Path]:
    """Files as given, folders as the images in them; each once."""
    from agiqa.data.datasets.folder import find_images

    files: dict[Path, None] = {}
    for image in images:
        if image.is_dir():
            files |= dict.fromkeys(find_images(image))
        elif image.exists():
            files[image] = None
        elif ADDRESS.match(str(image)):
            address = ADDRESS.sub(r"\1://", str(image))  # a path has lost a slash of it
            raise AgiqaError(f"{address}: expected files or folders on this machine; download it.")
        else:
            raise AgiqaError(f"{image}: no such file or folder.")
    return list(files)


def style_of(style: str | None, out: Path | None) -> str:
    """The format asked for, or the one that the name of the file says.

    Raises:
        click.UsageError: the name says none that is written here, or another than --format.
    """
    if out is None:
        return style or "table"
    named = SUFFIXES.get(out.suffix.lower())
    if named is None and (style is None or out.suffix.lower() in FOREIGN):
        hint = "--html writes a page" if out.suffix.lower() in (".html", ".htm") else ""
        raise click.UsageError(
            f"-o {out}: expected a name that ends in {', '.join(SUFFIXES)}"
            + (f"; {hint}." if hint else ", or --format with a name of another kind.")
        )
    if style is not None and named is not None and named != style:
        raise click.UsageError(f"-o {out}: a name of {named}, but --format {style}: choose one.")
    return style or str(named)


def _cannot_score(bad: Sequence["BadImage"], count: int, advice: str) -> AgiqaError:
    """One line for the first few; the others are listed before it."""
    for image in bad[3:]:
        echo(f"{image.path}: {image.reason}", err=True)
    some = "; ".join(f"{image.path} {image.reason}" for image in bad[:3])
    return AgiqaError(
        f"{len(bad)} of {count} images cannot be scored: {some}. {advice}, or leave them out with "
        "--skip-bad."
    )


def _write(
    scores: Sequence["Score"],
    bad: Sequence["BadImage"],
    scorer: "ImageScorer",
    style: str,
    stream: TextIO,
) -> None:
    provenance = scorer.provenance
    low, high = scorer.scale
    if style == "json":
        content: dict[str, Any] = {
            "scorer" if "scorer" in provenance else "run": scorer.label,
            "dataset": provenance["dataset"],
            "target": provenance["target"],
            "synthetic": provenance["synthetic"],
            "scale": {"low": low, "high": high},
            "notes": notes(scores, provenance)[1:],
            "scores": [_plain(score) for score in scores],
            "skipped": [vars(image) for image in bad],
        }
        from agiqa.core.json_text import json_text

        stream.write(json_text(content, indent=2) + "\n")
    else:
        write_rows(scores, provenance, stream, LAYOUTS[style])


def _plain(score: "Score") -> dict[str, Any]:
    """Without the quality map: that is for Python."""
    return {key: value for key, value in vars(score).items() if key != "quality_map"}
