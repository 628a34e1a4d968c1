"""`agiqa extract`: stage 1."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.lines import echo
from agiqa.cli.options import as_json, cache, extractor, read_settings, settings, show
from agiqa.core.errors import AgiqaError
from agiqa.core.params import with_extractor

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from agiqa.data.datasets.table import ImagesTable
    from agiqa.stage1.extractors import Extractor


@click.command("extract", cls=Command)
@click.argument("dataset")
@click.option(
    "--only",
    type=click.Choice(["semantic", "visual"]),
    help="Only the LMM's vectors, or only the visual backbone's. Default: both.",
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
@extractor
@cache
@settings
@as_json
def command(
    dataset: str,
    only: str | None,
    extractor: str,
    skip_bad: bool,
    dry_run: bool,
    cache: Path,
    params_file: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    r"""Bring the feature stores of DATASET up to date.

    Vectors live in the ledger ($AGIQA_STORE, or the user's cache folder), which all projects
    share; CACHE/DATASET/<name>.zarr is packed from it. Only missing vectors are computed: after
    a stop, the same command goes on. Under torchrun, accelerate launch or srun each process
    computes its share, and rank 0 packs them all.

    \b
    agiqa extract demo
    agiqa extract agiqa-3k --only semantic --dry-run
    agiqa extract agiqa-3k --only visual --set visual.image_size=448
    agiqa extract mine --set semantic.model=~/models/my-lmm --set semantic.name=my-lmm
    agiqa extract mine --only semantic --extractor qwen
    """
    from agiqa.core.processes import this_process
    from agiqa.data.datasets.origin import require_fresh
    from agiqa.data.datasets.table import read_table
    from agiqa.data.images import BadImagesError
    from agiqa.stage1.extract import extract
    from agiqa.stage1.extractors import Extractor, VisionExtractor, semantic_extractor

    process = this_process()
    if process.world > 1:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter(f"[{process}] %(message)s"))
    params = with_extractor(read_settings(params_file, overrides), extractor)
    table = read_table(cache / dataset)
    table.folder()  # before any model is loaded
    require_fresh(table, cache / dataset, images=not skip_bad)
    done: dict[str, Any] = {}
    refused: dict[str, None] = {}  # lines about bad images; the other extractor does its work first
    for kind in (only,) if only else ("semantic", "visual"):
        chosen = params.semantic if kind == "semantic" else params.visual
        made: Extractor = (
            semantic_extractor(params.semantic)
            if kind == "semantic"
            else VisionExtractor(params.visual)
        )
        if dry_run:
            done[kind] = _estimate(table, made, chosen.workers, as_json)
            if (bad := done[kind]["bad"]) and not skip_bad:
                refused[_foreseen(bad, dataset, chosen.name)] = None
            continue
        try:
            result = extract(
                table,
                made,
                cache / dataset / f"{chosen.name}.{chosen.format}",
                workers=chosen.workers,
                skip_bad=skip_bad,
                process=process,
            )
        except BadImagesError as error:
            refused[str(error)] = None
            continue
        if result.rank > 0:
            log.info(
                "share done: %d vectors computed in %.0f s; rank 0 writes %s",
                result.computed,
                result.seconds,
                result.store,
            )
            continue
        rate = result.computed / result.vectors / result.seconds
        done[kind] = {
            "store": str(result.store),
            "images": result.images,
            "vectors": result.vectors,
            "width": result.width,
            "cached": result.cached,
            "computed": result.computed,
            "seconds": round(result.seconds, 1),
            "skipped": [f"{bad.path}: {bad.reason}" for bad in result.bad],
        }
        if not as_json:
            echo(
                f"{result.store}: {result.images} images x {result.vectors} vectors x "
                f"{result.width}; {result.cached} cached, {result.computed} computed in "
                f"{result.seconds:.0f} s" + (f" ({rate:.1f} images/s)" if result.computed else "")
            )
            for bad in result.bad:
                echo(f"Skipped {bad.path}: {bad.reason}", err=True)
    if as_json and done:
        show(done, as_json)
    if refused:
        raise AgiqaError(" ".join(refused))


def _foreseen(bad: Sequence[Mapping[str, str]], dataset: str, name: str) -> str:
    some = "; ".join(f"{image['path']}: {image['reason']}" for image in bad[:3])
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    return (
        f"{len(bad)} images of '{dataset}' cannot be used with '{name}': {some}{more}. Repair "
        "them, or leave them out with --skip-bad."
    )


def _estimate(
    table: "ImagesTable", extractor: "Extractor", workers: int, as_json: bool
) -> dict[str, Any]:
    from agiqa.stage1.estimate import estimate

    found = estimate(table, extractor, workers=workers)
    if not as_json:
        echo(
            f"{extractor.name}: {found.images} images x {found.vectors} vectors; {found.cached} "
            f"cached, {found.missing} to compute, for {found.missing_images} images"
        )
    if not as_json and found.cost:
        cost = found.cost
        echo(
            f"  {cost.device}: {cost.flop / 1e9:.1f} GFLOP, {cost.model_seconds:.3f} s an image "
            f"(decoding {cost.decode_seconds:.3f} s in each of {workers} processes), peak memory "
            f"{cost.memory / 2**30:.1f} GiB; in all about {_time(found.seconds)}"
        )
    if not as_json:
        for bad in found.bad:
            echo(f"Bad {bad.path}: {bad.reason}", err=True)
    return asdict(found)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
