"""What an extraction would cost: missing rows, bad images, and a short measured warm-up."""

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImage, ImageError, image_size
from agiqa.stage1.batches import Trying, in_batches, samples_of
from agiqa.stage1.extract import bad_images, missing_rows, without_prompt
from agiqa.stage1.extractors import Extractor
from agiqa.stage1.extractors.contract import RefusedError
from agiqa.stage1.ledger_rows import Job, count, images_of
from agiqa.stage1.one_machine import changed
from agiqa.store.row_ids import Source

TRIED = 256  # sizes, and prompts, that are tried of each extreme


@dataclass(frozen=True)
class Cost:
    """Of one image on this device, all wanted vectors together."""

    images: int  # that the warm-up ran
    flop: float  # of the model; two for a multiplication with an addition
    model_seconds: float
    decode_seconds: float  # of one process
    memory: float  # bytes at the peak: of the GPU, else of the process
    device: str


@dataclass(frozen=True)
class Estimate:
    """What `extract` would do, and its cost."""

    images: int  # distinct ones in the table
    vectors: int  # of each
    cached: int  # rows that are there
    missing: int  # rows to compute
    missing_images: int  # images that they belong to
    cost: Cost | None  # None where nothing can be computed
    seconds: float  # expected for all that is missing
    bad: tuple[BadImage, ...] = ()  # of those, as far as can be foreseen


def estimate(
    table: ImagesTable, extractor: Extractor, ledger: Path | None = None, workers: int = 2
) -> Estimate:
    """Count what is missing, foresee what is bad, run one batch three times, and store nothing.

    Args:
        table: the images.
        extractor: what makes the vectors.
        ledger: the ledger's folder; by default `store.default_root()`.
        workers: processes that would decode.

    Raises:
        AgiqaError: the model cannot be run.
    """
    sources, jobs = missing_rows(table, extractor, ledger)
    missing, images = count(jobs), len(images_of(jobs))
    rows = len(sources) * len(extractor.vectors)
    bad = without_prompt(sources, jobs, extractor) | changed(sources, jobs, workers)
    bad |= foreseen(sources, images_of([job.without(bad) for job in jobs]), extractor)
    good = [job.without(bad) for job in jobs]
    cost, seconds = None, 0.0
    if images_of(good):
        job = max(good, key=lambda job: len(job.image_ids))
        batch = Job(job.wanted, job.image_ids[: extractor.batch_size])
        cost = _measure(batch, extractor, sources, bad)
    if cost:
        an_image = cost.model_seconds + cost.decode_seconds
        if workers:
            an_image = max(cost.model_seconds, cost.decode_seconds / workers)
        seconds = (images - len(bad)) * an_image
    return Estimate(
        images=len(sources),
        vectors=len(extractor.vectors),
        cached=rows - missing,
        missing=missing,
        missing_images=images,
        cost=cost,
        seconds=seconds,
        bad=bad_images(sources, bad),
    )


def foreseen(
    sources: Mapping[str, Source], ids: Sequence[str], extractor: Extractor
) -> dict[str, str]:
    """Foresee by id why the extractor will refuse an image, from its size and its prompt.

    A grey image stands for those of one size. Of many sizes and prompts the most elongated, the
    smallest and the longest are tried; no pixel is decoded.
    """
    bad: dict[str, str] = {}
    cases: dict[tuple[tuple[int, int], str | None], list[str]] = {}
    for name in ids:
        try:
            size = image_size(sources[name].path)
        except ImageError as error:
            bad[name] = error.reason
            continue
        case = (size, sources[name].image_prompt)
        cases.setdefault(case, []).append(name)
    chosen = {
        case
        for extreme in (
            lambda case: min(case[0]) / max(case[0]),
            lambda case: min(case[0]),
            lambda case: -len(case[1] or ""),
        )
        for case in sorted(cases, key=extreme)[:TRIED]
    }
    for case in chosen:
        size, prompt = case
        try:
            extractor.preprocess(Image.new("RGB", size, (127, 127, 127)), prompt)
        except RefusedError as error:
            bad |= dict.fromkeys(cases[case], str(error))
    return {name: bad[name] for name in ids if name in bad}


def _measure(
    job: Job, extractor: Extractor, sources: Mapping[str, Source], bad: dict[str, str]
) -> Cost | None:
    """Measure the cost by one batch; images that turn out to be bad are added to `bad`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    started = time.perf_counter()
    loaded = list(samples_of(job, sources, extractor, workers=0, bad=bad))
    if not loaded:
        return None
    decoded = (time.perf_counter() - started) / len(loaded)
    names, samples = max(in_batches(loaded, extractor.batch_size), key=lambda group: len(group[0]))
    samples = samples[: len(names)]
    # Loads the model, and finds what can be shared.
    done = Trying(extractor, bad).rows(names, samples, job.wanted)
    working = {name for ids, _ in done for name in ids}
    samples = [sample for name, sample in zip(names, samples, strict=True) if name in working]
    if not samples:
        return None
    # Torch counts all products but those of int8.
    of_int8 = {torch.ops.aten._int_mm: lambda a, b, out_shape: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=of_int8) as counter:
        extractor.extract(samples, job.wanted)
    started = time.perf_counter()
    extractor.extract(samples, job.wanted)
    seconds = (time.perf_counter() - started) / len(samples)
    cuda = torch.cuda.is_available()
    scale = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return Cost(
        images=len(samples),
        flop=counter.get_total_flops() / len(samples),
        model_seconds=seconds,
        decode_seconds=decoded,
        memory=torch.cuda.max_memory_allocated() if cuda else resident,
        device=torch.cuda.get_device_name() if cuda else "cpu",
    )
