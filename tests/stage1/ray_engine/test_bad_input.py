"""What a cluster, a node or an image may get wrong: one line that names it and what to do."""

import dataclasses
import errno
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic
from agiqa.data.datasets.table import ImagesTable, write_table
from agiqa.stage1 import ray_cluster, ray_nodes
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor
from agiqa.stage1.ledger_rows import LedgerRows
from agiqa.stage1.one_machine import OneMachine
from agiqa.stage1.ray_cluster import Pool, RayCluster, _require_seen, pool_of
from agiqa.stage1.ray_nodes import Result, Unit, UnitExtractor, Work, decode_unit
from agiqa.store.row_ids import sources_of
from kit.command import agiqa, one_line

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray has warnings of its own


@pytest.fixture(autouse=True)
def _node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_nodes, "node_name", lambda: "10.0.0.2 (gpu-2)")
    monkeypatch.setattr(ray_nodes, "_made", {})


@pytest.fixture
def table(make_images: Callable[[int], ImagesTable]) -> ImagesTable:
    return make_images(4)


@pytest.fixture
def rows(table: ImagesTable, semantic: Semantic, tmp_path: Path) -> LedgerRows:
    return LedgerRows(ImageTextExtractor(semantic), sources_of(table, False), tmp_path / "l")


@pytest.fixture
def work(rows: LedgerRows) -> Work:
    """As the driver makes it, but for the roll: each unit is begun for the first time."""
    vectors = rows.extractor.vectors
    fingerprints = tuple(dict(vector.fingerprint) for vector in vectors)
    (rows.root / "token").touch()
    recipe = rows.extractor.recipe()
    return Work(recipe, fingerprints, ray_nodes.version("agiqa"), rows.root, "token", "", None)


@pytest.fixture
def unit(rows: LedgerRows) -> Unit:
    return next(RayCluster()._units(rows, rows.missing(list(rows.sources)), Pool(1)))


def run(unit: Unit, work: Work, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr(UnitExtractor, "_missing", lambda *_: {unit.wanted: set(unit.places)})
    decoded = decode_unit({"unit": pickle.dumps(unit)}, work)
    return pickle.loads(UnitExtractor(work)(decoded)["result"])


def test_rows_return_where_the_ledger_is_not(
    unit: Unit, work: Work, rows: LedgerRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = run(unit, dataclasses.replace(work, token="not-here"), monkeypatch)
    vectors = range(len(rows.shelves))
    assert [(new.vector, len(new.image_ids)) for new in away.rows] == [(v, 4) for v in vectors]
    assert rows.missing(list(rows.sources))
    assert run(unit, work, monkeypatch).rows == []
    assert rows.missing(list(rows.sources)) == []


def test_other_versions_on_a_node(unit: Unit, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ray_nodes.version
    found: dict[str, str] = {"pillow": "12.0.0"}
    monkeypatch.setattr("importlib.metadata.version", lambda name: found.get(name) or real(name))
    error = run(unit, work, monkeypatch).error
    assert error.startswith("node 10.0.0.2 (gpu-2): the model here: expected 0.libraries.pillow = ")
    assert "found '12.0.0'" in error
    assert "install the same versions" in error
    assert "\n" not in error
    newer = dataclasses.replace(work, version="9.9")
    assert "expected agiqa 9.9, found" in run(unit, newer, monkeypatch).error


def test_a_model_that_a_node_does_not_have(
    unit: Unit, work: Work, semantic: Semantic, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = dataclasses.replace(semantic, model="/only/there")
    recipe = dataclasses.replace(work.recipe, arguments=(elsewhere, *work.recipe.arguments[1:]))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = run(unit, dataclasses.replace(work, recipe=recipe), monkeypatch).error
    assert error.startswith("node 10.0.0.2 (gpu-2): Model '/only/there': no such folder")
    assert error.endswith("(finished rows are kept)")
    assert "\n" not in error


def test_a_full_disk_on_a_node(unit: Unit, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("agiqa.store.files.os.fsync", full)
    error = run(unit, work, monkeypatch).error
    assert error.startswith("node 10.0.0.2 (gpu-2): expected to write features to ")
    assert "No space left on device; free some space" in error
    assert "\n" not in error


def test_an_image_that_one_node_does_not_see(
    unit: Unit, work: Work, rows: LedgerRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' rows are written; the driver, which has the file, names the node."""
    name = next(iter(unit.places))
    away = unit.places[name]._replace(address="/not/mounted/0.png")
    result = run(unit._replace(places={**unit.places, name: away}), work, monkeypatch)
    assert (result.error, list(result.bad), list(result.unseen)) == ("", [name], [name])
    assert [job.image_ids for job in rows.missing(list(rows.sources))] == [(name,)]
    with pytest.raises(AgiqaError, match=r"node 10\.0\.0\.2 \(gpu-2\): 1 images are not there"):
        _require_seen(result.unseen, rows)
    rows.sources[name].path.unlink()
    _require_seen(result.unseen, rows)  # it is nowhere: a bad image as any other


def test_a_cluster_without_gpus_or_room(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Resources": {"CPU": 4.0}, "NodeManagerAddress": f"10.0.0.{row}"} for row in (1, 2)]
    monkeypatch.setattr("agiqa.stage1.ray_cluster._nodes", lambda: nodes)
    with pytest.raises(AgiqaError, match=r"10\.0\.0\.1, 10\.0\.0\.2\): expected GPUs, .* --actors"):
        pool_of(0)
    with pytest.raises(AgiqaError, match=r"--actors 9: .* has 8 CPUs; give at most as many"):
        pool_of(9)
    assert [pool_of(actors).cpus for actors in (1, 2, 3, 8)] == [4, 4, 2, 1]
    nodes[1]["Resources"]["GPU"] = 2.0
    assert [(pool_of(n).actors, pool_of(n).gpus) for n in (0, 1, 9)] == [(2, 1), (1, 1), (2, 1)]


def test_a_lost_node_is_named_and_another_job_goes_on(
    rows: LedgerRows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With as many actors as there is still room for; not for ever."""
    nodes = [{"NodeID": str(row), "Resources": {"CPU": 1.0}, "NodeManagerAddress": f"10.0.0.{row}"}
             for row in range(3)]  # fmt: skip
    monkeypatch.setattr(ray_cluster, "_nodes", lambda: nodes)
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'agiqa[ray]'")
    monkeypatch.setattr(ray, "wait", lambda *_, **__: ([], []))
    monkeypatch.setattr(ray_cluster, "_connect", lambda _: None)
    pools = list[Pool]()

    def job(_: RayCluster, rows: LedgerRows, jobs: Any, done: Any, pool: Pool) -> None:
        pools.append(pool)
        started = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
        if len(pools) % 2:  # a node leaves while no result comes
            nodes.pop()
            ray_cluster._next("nothing", started)
        OneMachine(0).compute(rows, jobs)

    monkeypatch.setattr(RayCluster, "_run", job)
    jobs = rows.missing(list(rows.sources))
    assert RayCluster(actors=3).compute(rows, jobs) == {}
    assert [pool.actors for pool in pools] == [3, 2]
    assert rows.missing(list(rows.sources)) == []
    assert [r.message for r in caplog.records] == [
        "node 10.0.0.2 is lost; going on with what the ledger lacks"
    ]


def test_jobs_that_add_nothing_end(rows: LedgerRows, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(*_: Any) -> None:
        raise ray_cluster.LostError("Ray ended the job: out of memory")

    monkeypatch.setattr(RayCluster, "_run", job)
    monkeypatch.setattr(ray_cluster, "pool_of", Pool)
    monkeypatch.setattr(ray_cluster, "most_actors", lambda: 1)
    monkeypatch.setattr(ray_cluster, "_connect", lambda _: None)
    with pytest.raises(AgiqaError, match=r"3 jobs .* added no vector: Ray ended .*; look at") as no:
        RayCluster(actors=1).compute(rows, rows.missing(list(rows.sources)))
    assert "\n" not in str(no.value)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "there:nobody"])
def test_no_cluster_there(
    table: ImagesTable,
    semantic: Semantic,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
) -> None:
    pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'agiqa[ray]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "l"))
    write_table(table, Path("cache/many"))
    options = ["--engine", "ray", "--ray-address", address, "--actors", "1", "--only", "semantic"]
    options.append(f"--set=semantic.model={semantic.model}")
    one_line(agiqa("extract", "many", *options, status=1), f"Ray at {address}: expected a cluster")


def test_without_the_extra(
    table: ImagesTable, semantic: Semantic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    told: Any = {"ledger": tmp_path / "l", "engine": RayCluster()}
    with pytest.raises(AgiqaError, match=r"--engine ray needs Ray .*pip install 'agiqa\[ray\]'"):
        extract(table, ImageTextExtractor(semantic), tmp_path / "s.zarr", **told)


def test_one_picture_made_from_two_prompts(
    table: ImagesTable,
    semantic: Semantic,
    work: Work,
    write_prompts: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two rows of what holds the prompt, one of what does not."""
    asked = write_prompts({"own": "Is it {image_prompt}?", "plain": "Is it good?"})
    extractor = ImageTextExtractor(dataclasses.replace(semantic, prompts=asked))
    first = table.frame.iloc[[0, 0]].assign(prompt=["a cat", "a dog"])
    sources = sources_of(dataclasses.replace(table, frame=first), True)
    rows = LedgerRows(extractor, sources, work.ledger)
    prints = tuple(dict(vector.fingerprint) for vector in extractor.vectors)
    two = dataclasses.replace(work, recipe=extractor.recipe(), fingerprints=prints)
    for unit in RayCluster()._units(rows, rows.missing(list(sources)), Pool(1)):
        assert run(unit, two, monkeypatch).bad == {}
    assert rows.missing(list(sources)) == []
    assert [len(shelf.ids()) for shelf in rows.shelves] == [2, 1]
