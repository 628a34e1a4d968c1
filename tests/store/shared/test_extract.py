"""`extract` with AGIQA_STORE at a URL: what one machine computed, another has."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from agiqa.core.params import Visual
from agiqa.core.processes import Process
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage1.estimate import estimate
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import VisionExtractor
from agiqa.store import RemoteError
from kit.machines import Machine, Server
from kit.stored_rows import files

Machines = Callable[[str], Machine]


@pytest.fixture
def visual(tiny_lmm: Path) -> Visual:
    settings = {"layers": (1, 3), "image_size": 48, "closeup": 64, "batch_size": 4, "workers": 0}
    return Visual(name="tiny", model=str(tiny_lmm), **settings)  # type: ignore[arg-type]


@pytest.fixture
def table(write_images: Callable[..., Path]) -> ImagesTable:
    return folder.prepare(write_images(*[f"{row}.png" for row in range(6)]), "six")


def test_a_second_machine_computes_nothing_and_packs_the_same(
    table: ImagesTable,
    visual: Visual,
    machine: Machines,
    bucket: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    url, packs = f"s3://{bucket}/ledger", [tmp_path / f"{name}.zarr" for name in "abc"]
    machine("a").enter(url)
    first = extract(table, VisionExtractor(visual), packs[0], workers=0)
    assert (first.computed, first.cached) == (6 * first.vectors, 0)
    machine("b").enter(url)
    assert estimate(table, VisionExtractor(visual), workers=0).missing == 0
    for path in table.paths():
        path.unlink()  # they are not looked at
    second = extract(table, VisionExtractor(visual), packs[1], workers=0)
    assert (second.computed, second.cached) == (0, 6 * first.vectors)
    assert f"{6 * first.vectors} vectors from {url}" in caplog.text
    assert files(packs[0]) == files(packs[1])
    machine("c").enter(url)  # two processes, each pulls its share
    for rank in (1, 0):
        process = Process(rank, 2, rank)
        extract(table, VisionExtractor(visual), packs[2], workers=0, process=process)
    assert files(packs[0]) == files(packs[2])


def test_no_server_no_work(
    table: ImagesTable, visual: Visual, machine: Machines, server: Server, tmp_path: Path
) -> None:
    """Computing what others may have would be a waste: the user decides."""
    machine("a").enter("s3://no-such-bucket/ledger")
    with pytest.raises(RemoteError, match="create the bucket; or unset AGIQA_STORE to work alone"):
        extract(table, VisionExtractor(visual), tmp_path / "a.zarr", workers=0)
