"""Stage 1 of a prepared data set: the LMM's store and the visual backbone's, one after the other.

`extract` (extract.py) takes a table and an extractor; here both come from `cache/NAME` and the
settings. Images that one extractor refuses do not keep the other from its work.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from agiqa.core.params import Params, Semantic, Visual, settings, with_extractor
from agiqa.data.datasets.origin import require_fresh
from agiqa.data.datasets.table import ImagesTable, read_table
from agiqa.data.images import BadImage, BadImagesError
from agiqa.stage1.estimate import Estimate, estimate
from agiqa.stage1.extract import Extraction, extract
from agiqa.stage1.extractors import Extractor, VisionExtractor, semantic_extractor

Kind = Literal["semantic", "visual"]
Result = TypeVar("Result", Extraction, Estimate)


class StoreJob(NamedTuple):
    """One store of a data set, to be brought up to date."""

    table: ImagesTable
    extractor: Extractor
    settings: Semantic | Visual
    store: Path
    skip_bad: bool


def extract_data_set(
    dataset: str,
    *,
    only: Kind | None = None,
    extractor: str = "",
    cache: Path | str = "cache",
    params: Params | None = None,
    skip_bad: bool = False,
    tell: Callable[[Kind, Extraction], None] | None = None,
) -> dict[Kind, Extraction]:
    """Bring a data set's stores of vectors up to date: `extract("demo")["visual"].computed`.

    Only vectors that the ledger lacks are computed; after a stop, the same call goes on.

    Args:
        dataset: a name that was prepared.
        only: one of the two stores; by default both.
        extractor: an entry of `extractors` in the settings, instead of section semantic.
        cache: folder of images tables and feature stores.
        params: all settings; by default those of ./params.yaml.
        skip_bad: leave out images absent or changed since `prepare`, or refused by a model.
        tell: called with each store's result as soon as it is there.

    Raises:
        BadImagesError: of images that cannot be used, once all others are done.
        AgiqaError: no such data set, a table older than its sources, a model that does not load,
            a full disk. Finished rows stay.
    """

    def extracted(job: StoreJob) -> Extraction:
        return extract(
            job.table,
            job.extractor,
            job.store,
            workers=job.settings.workers,
            skip_bad=job.skip_bad,
        )

    jobs = _jobs(dataset, only, extractor, Path(cache), params, skip_bad)
    return _done(jobs, extracted, tell)


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
        return estimate(job.table, job.extractor, workers=job.settings.workers)

    jobs = _jobs(dataset, only, extractor, Path(cache), params, skip_bad)
    return _done(jobs, estimated, tell)


def _jobs(
    dataset: str,
    only: Kind | None,
    extractor: str,
    cache: Path,
    params: Params | None,
    skip_bad: bool,
) -> Iterator[tuple[Kind, StoreJob]]:
    """Make the extractors one at a time, so that two models never share the memory."""
    params = with_extractor(settings(params), extractor)
    table = read_table(cache / dataset)
    table.folder()  # before any model is loaded
    require_fresh(table, cache / dataset, skip_bad=skip_bad)
    kinds: tuple[Kind, ...] = (only,) if only else ("semantic", "visual")
    for kind in kinds:
        chosen: Semantic | Visual = params.semantic if kind == "semantic" else params.visual
        store = cache / dataset / f"{chosen.name}.{chosen.format}"
        made = (
            semantic_extractor(chosen) if isinstance(chosen, Semantic) else VisionExtractor(chosen)
        )
        yield kind, StoreJob(table, made, chosen, store, skip_bad)


def _done(
    jobs: Iterator[tuple[Kind, StoreJob]],
    work: Callable[[StoreJob], Result],
    tell: Callable[[Kind, Result], None] | None,
) -> dict[Kind, Result]:
    """Do all jobs, then raise what images were refused on the way."""
    results: dict[Kind, Result] = {}
    refused: dict[str, tuple[BadImage, ...]] = {}  # by message
    for kind, job in jobs:
        try:
            results[kind] = work(job)
        except BadImagesError as error:
            refused[str(error)] = error.bad
            continue
        if tell:
            tell(kind, results[kind])
        if isinstance(results[kind], Estimate) and results[kind].bad and not job.skip_bad:
            refused[_foreseen(results[kind].bad, job)] = results[kind].bad
    if refused:
        raise BadImagesError(
            " ".join(refused), [image for bad in refused.values() for image in bad]
        )
    return results


def _foreseen(bad: tuple[BadImage, ...], job: StoreJob) -> str:
    some = "; ".join(f"{image.path}: {image.reason}" for image in bad[:3])
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    return (
        f"{len(bad)} images of '{job.table.name}' cannot be used with '{job.settings.name}': "
        f"{some}{more}. Repair them, or leave them out with --skip-bad."
    )
