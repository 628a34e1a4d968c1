"""`agiqa explain`: why a run scores images as it does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli import options
from agiqa.cli.lazy import Command
from agiqa.cli.output import echo, print_json
from agiqa.core.errors import AgiqaError, printable

if TYPE_CHECKING:
    from agiqa.runs.explain import Explainer
    from agiqa.runs.explain.write import Chosen


@click.command("explain", cls=Command)
@click.argument(
    "paths", nargs=-1, required=True, type=options.RUN_OR_IMAGE, metavar="[RUN] [IMAGES]..."
)
@options.number(
    "--worst", 24, "Without IMAGES: so many of the largest misses on the test sides.", metavar="N"
)
@options.number("--best", 12, "Likewise of the best hits, over the range of the MOS.", metavar="N")
@options.number("--lowest", 12, "Likewise of the lowest scores.", metavar="N")
@options.number(
    "--neighbours", 5, "Rated images that look alike, for each image.", most=50, metavar="N"
)
@click.option(
    "--aspects",
    metavar="NAME",
    help="Store of the aspects' answers: NAME-answers.zarr. Default: the one in the cache.",
)
@options.image_prompt
@click.option("--skip-bad", is_flag=True, help="Leave unreadable IMAGES out instead of stopping.")
@click.option(
    "-o",
    "--out",
    type=options.OUT_FOLDER,
    metavar="FOLDER",
    help="What to write. Default: RUN/explanations; without RUN: explanations.",
)
@options.cache_or_url
@options.remote_code
@options.as_json
def command(
    paths: tuple[Path, ...],
    worst: int,
    best: int,
    lowest: int,
    neighbours: int,
    aspects: str | None,
    image_prompt: str | None,
    skip_bad: bool,
    out: Path | None,
    cache: Path | str,
    remote_code: str,
    as_json: bool,
) -> None:
    r"""Say why RUN scores IMAGES, or its own worst and best, as it does.

    A map of each image (orange places pull the score down, blue ones up), the quality aspects in
    which the LMM's cached answers are unusual, in words, and the rated images that look alike. An
    aspect is shown only if its answers relate to the MOS or the run's error on the validation
    sides. All goes to RUN/explanations, where `agiqa report` finds it.

    Without RUN, the scorer that comes with agiqa is explained: scores and maps.

    \b
    agiqa explain pictures/
    agiqa explain runs/agiqa-3k/grouped
    agiqa explain runs/agiqa-3k/grouped --worst 6 --best 0 --lowest 0
    agiqa explain runs/agiqa-3k/grouped pictures/ -o why/ --aspects nano-aspects
    """  # fmt: skip
    from agiqa.runs.explain import explain_run, write
    from agiqa.runs.files import load_provenance

    run, files = _run_and_files(paths)
    if "published" in load_provenance(run) and out is None and run == paths[0]:
        raise click.UsageError("A published RUN stays as it is: say where to write, -o FOLDER.")
    folder = out or (run / write.FOLDER if run == paths[0] else Path(write.FOLDER))
    write.require_replaceable(folder)
    explainer = _make_explainer(run, cache, aspects, remote_code)
    if files:
        chosen, bad = write.chosen_files(explainer, files, skip_bad)
        chosen = write.with_scores(explainer, chosen, image_prompt)
        for unusable in bad:
            echo(f"Skipped {unusable.path}: {unusable.reason}", err=True)
    elif explainer.rated is None:
        raise AgiqaError(explainer.available["neighbours"])
    else:
        chosen = write.choose(run, explainer.rated.table.root, worst, best, lowest)
    content = explain_run(explainer, chosen, folder, neighbours, image_prompt)
    if as_json:
        print_json({"folder": str(folder), **content})
        return
    for image in chosen:
        _show(image, content["images"][image.name], folder)
    _say_how_well(content)
    echo(f"Written to {folder}.")


def _make_explainer(
    run: Path, cache: Path | str, aspects: str | None, remote_code: str
) -> "Explainer":
    """Load the run and what explains it; AgiqaError where aspects that are named cannot speak."""
    from agiqa.runs.explain import Explainer
    from agiqa.runs.files import load_run
    from agiqa.runs.score import Scorer
    from agiqa.store.packs.pack import at_hand

    scorer = Scorer(load_run(run, remote_code))
    stores = (scorer.run.params.visual, scorer.run.params.semantic)
    packs = [f"{store.name}.{store.format}" for store in stores]
    packs += [f"{aspects}-answers.{stores[1].format}"] if aspects else []
    cache = at_hand(cache, str(scorer.run.provenance["dataset"]), packs)
    explainer = Explainer(scorer, cache, aspects)
    if aspects and explainer.available["reasons"]:
        raise AgiqaError(explainer.available["reasons"])
    return explainer


def _run_and_files(paths: Sequence[Path]) -> tuple[Path, list[Path]]:
    """Tell the run from the images: a file, or a folder that is no run, stands for images."""
    from agiqa.core.run_folders import PROVENANCE
    from agiqa.runs.score import default_run

    first = paths[0]
    if not first.exists():
        raise AgiqaError(f"{printable(first)}: no such run, image or folder.")
    if not (first / PROVENANCE).is_file():
        return default_run(), files_of(paths)
    return first, files_of(paths[1:])


def files_of(images: Sequence[Path]) -> list[Path]:
    """Give files as they are and folders as the images in them, each once.

    Raises:
        AgiqaError: there is no such file or folder here, or one that holds images inside.
    """
    from agiqa.data.datasets.folder import find_images
    from agiqa.runs.image_inputs import LISTS, PACKED, TABLES
    from agiqa.runs.shards import SHARDS

    files: dict[Path, None] = {}
    for image in images:
        if not image.exists():
            raise AgiqaError(f"{image}: no such file or folder on this machine.")
        if image.is_file() and image.suffix.lower() in (*SHARDS, *TABLES, *LISTS, *PACKED):
            raise AgiqaError(
                f"{printable(image)}: expected images or folders of them, found a file of another "
                "kind: unpack it, or name the images in it (agiqa score takes it as it is)"
            )
        files |= dict.fromkeys(find_images(image) if image.is_dir() else [image])
    return list(files)


def _show(image: "Chosen", about: Mapping[str, Any], folder: Path) -> None:
    """One block: the image, its map, its reasons, its neighbours."""
    figures = [f"score {image.score:.2f}"] if image.score is not None else []
    figures += [f"MOS {image.mos:.2f}"] if image.mos is not None else []
    echo("".join(f"  {figure}" for figure in figures), bold=image.name)
    if about["overlay"]:
        echo(f"  map      pulled down most: {about['weakest']}; {folder / about['overlay']}")
    elif about["problem"]:
        echo(f"  no map   {about['problem']}")
    for reason in about["reasons"]:
        echo(f"  reason   {reason['text']}")
    for alike in about["neighbours"]:
        how = f"{alike['similarity']:.2f}" + ", same prompt" * alike["same_prompt"]
        echo(f"  alike    rated {alike['mos']:.2f}: {alike['path']} (similarity {how})")
    echo()


def _say_how_well(content: Mapping[str, Any]) -> None:
    """How far the reasons may be believed; and why something was not given."""
    relations = content["reasons_validity"]
    shown = [aspect for aspect in relations if aspect["shown"]]
    if shown:
        names = ", ".join(
            "{aspect} (rho {rho_mos:.2f}, {low:.2f} to {high:.2f})".format_map(aspect)
            for aspect in sorted(shown, key=lambda aspect: -aspect["rho_mos"])
        )
        echo(
            f"Reasons come from {len(shown)} of {len(relations)} aspects, whose answers relate to "
            f"MOS or error on the validation sides: {names}. The others are never shown."
        )
    elif relations:
        echo(
            f"None of the {len(relations)} aspects' answers relates to MOS or error on the "
            "validation sides, so no reasons are shown."
        )
    for kind, why in content["available"].items():
        if why:
            echo(f"No {kind}: {why}")
