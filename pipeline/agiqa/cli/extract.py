"""`agiqa extract`: stage 1, images to vectors."""

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import Settings, as_json, cache, engine, extractor, settings
from agiqa.cli.output import echo, show
from agiqa.core.params import Params, with_extractor
from agiqa.core.processes import this_process
from agiqa.core.urls import is_url

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from agiqa.stage1.data_sets import Kind
    from agiqa.stage1.estimate import Estimate
    from agiqa.stage1.extract import Extraction
    from agiqa.stage1.ray_cluster import RayCluster


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
@extractor
@engine
@cache
@settings
@as_json
def command(
    dataset: str,
    only: "Kind | None",
    extractor: str,
    skip_bad: bool,
    dry_run: bool,
    images_at: str | None,
    engine: "RayCluster | None",
    cache: Path,
    settings: Settings,
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
