"""What an extraction would cost: the rows that are missing, and a short measured warm-up."""

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agiqa.computing import Job, Source, in_batches, samples_of
from agiqa.datasets.table import ImagesTable
from agiqa.extraction import missing_rows
from agiqa.extractors import Extractor


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
    """What `extract` would do."""

    images: int  # distinct ones in the table
    vectors: int  # of each
    cached: int  # rows that are there
    missing: int  # rows to compute
    missing_images: int  # images that they belong to
    cost: Cost | None  # None where nothing is missing
    seconds: float  # expected for all that is missing


def estimate(
    table: ImagesTable, extractor: Extractor, ledger: Path | None = None, workers: int = 2
) -> Estimate:
    """Count what is missing, run one batch of it three times, and store nothing.

    Args:
        table: the images.
        extractor: what makes the vectors.
        ledger: the ledger's folder; by default `feature_store.default_root()`.
        workers: processes that would decode.

    Raises:
        AgiqaError: the batch's images are absent, or the model cannot be run.
    """
    sources, jobs = missing_rows(table, extractor, ledger)
    missing = sum(len(job.wanted) * len(job.image_ids) for job in jobs)
    images = sum(len(job.image_ids) for job in jobs)
    rows = len(sources) * len(extractor.vectors)
    cost, seconds = None, 0.0
    if jobs:
        job = max(jobs, key=lambda job: len(job.image_ids))
        some = Job(job.wanted, job.image_ids[: extractor.batch_size])
        cost = _measure(some, extractor, sources)
        each = max(cost.model_seconds, cost.decode_seconds / max(1, workers))
        seconds = images * (each if workers else cost.model_seconds + cost.decode_seconds)
    return Estimate(
        images=len(sources),
        vectors=len(extractor.vectors),
        cached=rows - missing,
        missing=missing,
        missing_images=images,
        cost=cost,
        seconds=seconds,
    )


def _measure(job: Job, extractor: Extractor, sources: Mapping[str, Source]) -> Cost:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    started = time.perf_counter()
    found = list(samples_of(job, sources, extractor, workers=0))
    decoded = (time.perf_counter() - started) / len(found)
    names, samples = max(in_batches(found, extractor.batch_size), key=lambda each: len(each[0]))
    samples = samples[: len(names)]
    extractor.extract(samples, job.wanted)  # loads the model, and finds what can be shared
    with FlopCounterMode(display=False) as counter:
        extractor.extract(samples, job.wanted)
    started = time.perf_counter()
    extractor.extract(samples, job.wanted)
    seconds = (time.perf_counter() - started) / len(names)
    cuda = torch.cuda.is_available()
    scale = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return Cost(
        images=len(names),
        flop=counter.get_total_flops() / len(names),
        model_seconds=seconds,
        decode_seconds=decoded,
        memory=torch.cuda.max_memory_allocated() if cuda else resident,
        device=torch.cuda.get_device_name() if cuda else "cpu",
    )
