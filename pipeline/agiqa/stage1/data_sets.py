"""Stage 1 of a prepared data set: the stores of the LMM and the visual backbone, one by one.

`extract` (extract.py) takes a table and an extractor; here both come from `cache/NAME` and the
settings. Images that one extractor refuses do not keep the other from its work.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params, Semantic, Visual, settings, with_extractor
from agiqa.data.datasets.origin import require_fresh
from agiqa.data.datasets.table import ImagesTable, read_table
from agiqa.data.images import BadImage, BadImagesError
from agiqa.stage1.estimate import Estimate, estimate
from agiqa.stage1.extract import Extraction, extract, some_bad
from agiqa.stage1.extractors import Extractor, TokenExtractor, VisionExtractor, semantic_extractor
from agiqa.stage1.extractors.image_text import shared_tower
from agiqa.stage1.one_machine import Engine, OneMachine
from agiqa.store import TAIL, TOKENS, pack_beside

Kind = Literal["semantic", "visual", "tokens"]
Result = TypeVar("Result", Extraction, Estimate)
KINDS: tuple[Kind, ...] = ("semantic", "visual", "tokens")


class StoreJob(NamedTuple):
    """One store of a data set, to be brought up to date."""

    kind: Kind
    table: ImagesTable
    extractor: Extractor
    workers: int
    store: Path
    several: Extractor | None = None  # makes the other store's vectors in the same pass


def extract_data_set(
    dataset: str,
    *,
    only: Kind | None = None,
    extractor: str = "",
    cache: Path | str = "cache",
    params: Params | None = None,
    skip_bad: bool = False,
    engine: Engine | None = None,
    tell: Callable[[Kind, Extraction], None] | None = None,
) -> dict[Kind, Extraction]:
    """Bring a data set's stores of vectors up to date: `extract("demo")["visual"].computed`.

    Only vectors that the ledger lacks are computed; after a stop, the same call goes on.

    Args:
        dataset: a name that was prepared.
        only: one of the stores; by default all, tokens where `visual.tokens` names a block.
        extractor: an entry of `extractors` in the settings, instead of section semantic.
        cache: folder of images tables and feature stores.
        params: all settings; by default those of ./params.yaml.
        skip_bad: leave out images absent or changed since `prepare`, or refused by a model.
        engine: what computes; by default this process.
        tell: called with each store's result as it comes.

    Raises:
        BadImagesError: of images that cannot be used, once all others are done.
        AgiqaError: no such data set, a table older than its sources, a model that does not load,
            a full disk. Finished rows stay.
    """
    params = with_extractor(settings(params), extractor)
    folder = Path(cache) / dataset

    def extracted(job: StoreJob) -> Extraction:
        here = OneMachine(job.workers, job.several)
        result = extract(
            job.table, job.extractor, job.store, engine=engine or here, skip_bad=skip_bad
        )
        if isinstance(job.extractor, TokenExtractor) and result.awaited is None:
            job.extractor.write_tail(folder / f"{params.visual.name}{TAIL}")
        if tell:
            tell(job.kind, result)
        return result

    table = _images_of(folder, skip_bad, engine)
    return _done(_jobs(table, folder, only, params), extracted)


def estimate_data_set(
    dataset: str,
    *,
    only: Kind | None = None,
    extractor: str = "",
    cache: Path | str = "cache",
    params: Params | None = None,
    skip_bad: bool = False,
    tell: Callable[[Kind, Estimate], None] | None = None,
) -> dict[Kind, Estimate]:
    """Say what `extract` would compute and what it would take, by a short warm-up; store nothing.

    Takes and raises what `extract` does; BadImagesError of images that can be foreseen to be bad.
    """

    def estimated(job: StoreJob) -> Estimate:
        result = estimate(job.table, job.extractor, workers=job.workers)
        if tell:
            tell(job.kind, result)
        if result.bad and not skip_bad:
            raise BadImagesError(
                f"{len(result.bad)} images of '{job.table.name}' cannot be used with "
                f"'{job.extractor.name}': {some_bad(result.bad)}. Repair them, or leave them out "
                "with --skip-bad.",
                result.bad,
            )
        return result

    params = with_extractor(settings(params), extractor)
    folder = Path(cache) / dataset
    table = _images_of(folder, skip_bad, None)
    return _done(_jobs(table, folder, only, params), estimated)


def _images_of(folder: Path, skip_bad: bool, engine: Engine | None) -> ImagesTable:
    """Read the data set's table; its images lie in their folder, or where the engine has them."""
    table = read_table(folder)
    if engine and engine.images:
        return replace(table, root=Path())
    table.folder()  # before any model is loaded
    require_fresh(table, folder, skip_bad=skip_bad)
    return table


def _jobs(
    table: ImagesTable, folder: Path, only: Kind | None, params: Params
) -> Iterator[StoreJob]:
    """Make the extractors; none outlives its job in the memory."""
    wanted = (only,) if only else KINDS if params.visual.tokens else KINDS[:2]
    makers: dict[Kind, Callable[[], Extractor]] = {
        "semantic": lambda: semantic_extractor(params.semantic),
        "visual": lambda: VisionExtractor(params.visual),
        "tokens": lambda: TokenExtractor(params.visual),
    }
    made = {kind: makers[kind]() for kind in wanted}  # weights load on use
    several = _in_one_pass(made, params)
    for kind in wanted:
        chosen: Semantic | Visual = params.semantic if kind == "semantic" else params.visual
        store = folder / f"{chosen.name}.{chosen.format}"
        if kind == "tokens":
            store = pack_beside(store, TOKENS)
        yield StoreJob(kind, table, made.pop(kind), chosen.workers, store, several)
        several = None


def _in_one_pass(made: dict[Kind, Extractor], params: Params) -> Extractor | None:
    """Join the LMM and the visual backbone where one pass of a tower serves both.

    With the LMM alone, the visual vectors that its pass gives for nothing: they wait in the ledger.
    """
    if "semantic" not in made:
        return None
    if "visual" in made:
        return shared_tower(made["semantic"], made["visual"])
    with suppress(AgiqaError):  # about what was not asked for
        whole = VisionExtractor(replace(params.visual, closeup=0))
        return shared_tower(made["semantic"], whole)
    return None


def _done(jobs: Iterator[StoreJob], work: Callable[[StoreJob], Result]) -> dict[Kind, Result]:
    """Do all jobs, then raise what images were refused on the way."""
    results: dict[Kind, Result] = {}
    refused: dict[str, tuple[BadImage, ...]] = {}  # by message
    for job in jobs:
        try:
            results[job.kind] = work(job)
        except BadImagesError as error:
            refused[str(error)] = error.bad
    if refused:
        raise BadImagesError(
            " ".join(refused), [image for bad in refused.values() for image in bad]
        )
    return results
