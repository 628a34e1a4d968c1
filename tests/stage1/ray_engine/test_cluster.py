"""`extract` on a Ray cluster of two nodes: the rows of one process, whatever is killed."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agiqa.data.datasets.table import ImagesTable, write_table
from agiqa.stage1 import ray_cluster
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import Extractor
from agiqa.stage1.ledger_rows import LedgerRows
from agiqa.stage1.ray_cluster import Pool, RayCluster
from agiqa.stage1.ray_nodes import UnitExtractor, decode_unit, node_name
from agiqa.store.row_ids import sources_of
from kit.colours import Colours
from kit.command import agiqa
from kit.ray_nodes import SMALL
from kit.stored_rows import files
from kit.tiny_workspace import RUN

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray has warnings of its own

IMAGES, VECTORS = 96, 2


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def segments(ledger: Path) -> int:
    return len(list(ledger.glob("*/segments/*.safetensors")))


@pytest.fixture(scope="module")
def table(make_images: Callable[[int], ImagesTable]) -> ImagesTable:
    return make_images(IMAGES)


@pytest.fixture(scope="module")
def plain(
    ray_environment: Path, table: ImagesTable, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Extractor], dict[str, bytes]]:
    """The files of an extractor's pack as one process writes them."""

    def made(extractor: Extractor) -> dict[str, bytes]:
        root = tmp_path_factory.mktemp("plain")
        extract(table, extractor, root / "a.zarr", ledger=root / "l", workers=0)
        return files(root / "a.zarr")

    return made


def test_rows_equal_those_without_the_engine_though_an_actor_and_a_node_are_killed(
    cluster: Any,
    table: ImagesTable,
    plain: Callable[..., Any],
    ray_environment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And there is no room for a third actor elsewhere: another job goes on, with two.

    A bad image is told at the end, and left out on request.
    """
    monkeypatch.setattr(ray_cluster, "STALLED", 6.0)
    ray_environment.write_text("")
    node, ledger = cluster.add_node(**SMALL), tmp_path / "l"

    def kill() -> None:
        wait_for(lambda: len(ray_environment.read_text().split()) >= 6)
        os.kill(int(ray_environment.read_text().split()[0]), signal.SIGKILL)
        wait_for(lambda: len(ray_environment.read_text().split()) >= 12)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    lost, store = table.paths()[5], tmp_path / "b.zarr"
    content = lost.read_bytes()
    lost.write_bytes(b"no image")
    told: dict[str, Any] = {"ledger": ledger, "engine": RayCluster(cluster.address, actors=3)}
    try:
        skipped = extract(table, Colours(seconds=0.3), store, skip_bad=True, **told)
    finally:
        lost.write_bytes(content)
    killer.join()
    assert (skipped.images, skipped.computed) == (IMAGES - 1, (IMAGES - 1) * VECTORS)
    assert [bad.reason for bad in skipped.bad] == ["has changed since prepare"]
    assert not list(ledger.glob(".ray-*"))
    batches = len(ray_environment.read_text().split())
    assert batches <= IMAGES // 4 + 3 * 2  # again only what three processes had in hand
    rest = extract(table, Colours(), store, ledger=ledger, workers=0)
    assert rest.computed == VECTORS
    assert files(store) == plain(Colours())
    nobody = RayCluster("127.0.0.1:1")  # is not asked where there is nothing to do
    assert extract(table, Colours(), store, ledger=ledger, engine=nobody).computed == 0


def test_a_unit_that_was_begun_before_is_looked_up(
    cluster: Any, table: ImagesTable, ray_environment: Path, tmp_path: Path
) -> None:
    """Its rows are there, its result was lost with its node: nothing is computed twice."""
    ids = list(sources_of(table, False))
    rows = LedgerRows(Colours(), sources_of(table, False), tmp_path / "l")
    unit = next(RayCluster()._units(rows, rows.missing(ids), Pool(1)))
    with ray_cluster._shared_work(rows) as work:
        decoded = decode_unit({"unit": pickle.dumps(unit)}, work)
        results, batches = [], []
        for _ in range(2):
            ray_environment.write_text("")
            results.append(pickle.loads(UnitExtractor(work)(decoded)["result"]))
            batches.append(len(ray_environment.read_text().split()))
        assert [result.error for result in results] == ["", ""]
        assert (batches[0] > 0, batches[1]) == (True, 0)
        assert len(rows.missing(ids)[0].image_ids) == IMAGES - len(unit.places)
        UnitExtractor(work)(decoded)
        poisoned = pickle.loads(UnitExtractor(work)(decoded)["result"])
    assert f"ended 3 times (on {node_name()}" in poisoned.error
    assert "\n" not in poisoned.error


DRIVER = """
import sys
from pathlib import Path
from agiqa.data.datasets.table import read_table
from agiqa.stage1.extract import extract
from agiqa.stage1.ray_cluster import RayCluster
from kit.colours import Colours

folder, engine = Path(sys.argv[1]), RayCluster(sys.argv[2], actors=1)
table = read_table(folder)
extract(table, Colours(seconds=0.3), folder / "a.zarr", ledger=folder / "ledger", engine=engine)
"""


def test_a_killed_driver_goes_on(
    cluster: Any,
    table: ImagesTable,
    plain: Callable[..., Any],
    tmp_path: Path,
    python: list[str],
) -> None:
    """What was written before the kill is not computed again; the cluster outlives the driver."""
    write_table(table, tmp_path)
    ledger, store, address = tmp_path / "ledger", tmp_path / "a.zarr", cluster.address
    with subprocess.Popen([*python, "-c", DRIVER, str(tmp_path), address]) as driver:
        wait_for(lambda: segments(ledger) >= 2 or driver.poll() is not None)
        driver.kill()
    rows = LedgerRows(Colours(), sources_of(table, False), ledger)
    safe = sum(len(shelf.ids()) for shelf in rows.shelves)
    assert safe > 0
    done = extract(table, Colours(), store, ledger=ledger, engine=RayCluster(address, actors=1))
    assert done.cached + done.computed == IMAGES * VECTORS
    assert done.cached >= safe  # actors may have written on until Ray ended them
    assert files(store) == plain(Colours())


def test_scores_are_those_without_the_engine(
    cluster: Any, tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_workspace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    command = ["score", "images", "--run", str(tmp_path / RUN), "--format", "json"]
    printed = []
    for engine in ([], ["--engine", "ray", "--ray-address", cluster.address, "--actors", "1"]):
        monkeypatch.setenv("AGIQA_STORE", str(tmp_path / f"ledger{len(engine)}"))
        shown = agiqa(*command, *engine)
        printed.append(json.loads(shown.stdout)["scores"])
    assert len(printed[0]) == 40
    assert printed[0] == printed[1]
