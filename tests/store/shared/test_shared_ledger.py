"""Machines share rows through a bucket: what one computed is everybody's, and never a bad row."""

import logging
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Visual
from agiqa.core.processes import Process
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage1.estimate import estimate
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import VisionExtractor
from agiqa.store import RemoteError, Shelf, default_root, pull, pushing, shared_shelves
from agiqa.store.ledger.segments import Kind, build
from agiqa.store.ledger.sharing import SharedShelf
from agiqa.store.remote import Remote
from kit.machines import Machine, Server, make_bucket, make_ids, vectors_of
from kit.stored_rows import files

Machines = Callable[[str], Machine]


def share(shelf: Shelf, ids: list[str]) -> int:
    """What `extract` does where nothing is left to compute; how many rows came."""
    shared = shared_shelves([shelf])
    count = pull(shared, [ids])
    with pushing(shared, [ids]):
        pass
    return count


def segments(bucket: str) -> list[str]:
    found: list[str] = fsspec.filesystem("s3").find(f"{bucket}/ledger")
    return [path for path in found if "/segments/" in path]


def holds(shelf: Shelf, ids: list[str]) -> bool:
    """Whether the rows read back as they were computed."""
    return np.array_equal(shelf.read(ids), vectors_of(ids))


def test_rows_computed_on_one_machine_are_there_on_another(machine: Machines, bucket: str) -> None:
    url, ids = f"s3://{bucket}/ledger", make_ids(300)
    a = machine("a").enter(url)
    assert share(a.compute(ids[:200]), ids) == 0
    b = machine("b").enter(url)
    shelf = b.compute(ids[150:250])  # some rows twice, by chance at the same time
    assert share(shelf, ids) == 150
    assert holds(shelf, ids[:250])
    a.enter(url)
    assert share(a.shelf(), ids) == 50
    assert holds(a.shelf(), ids[:250])
    before = segments(bucket)
    assert len(before) == 2  # nothing was pushed twice
    assert share(a.shelf(), ids) == 0
    assert segments(bucket) == before


def test_only_the_images_asked_for_travel(machine: Machines, bucket: str) -> None:
    url, ids = f"s3://{bucket}/ledger", make_ids(20)
    assert share(machine("a").enter(url).compute(ids), ids[:10]) == 0
    assert share(shelf := machine("b").enter(url).shelf(), ids[5:]) == 5
    assert shelf.ids() == set(ids[5:10])


def test_many_rows_make_many_segments(
    machine: Machines, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agiqa.store.ledger.segments.ROWS_A_SEGMENT", 100)
    url, ids = f"s3://{bucket}/ledger", make_ids(605)
    share(machine("a").enter(url).compute(ids), ids)
    assert len(segments(bucket)) == 7
    assert share(shelf := machine("b").enter(url).shelf(), ids) == len(ids)
    assert holds(shelf, ids)


def test_the_users_own_ledger_gives_and_takes_nothing(machine: Machines, bucket: str) -> None:
    url, ids = f"s3://{bucket}/ledger", make_ids(30)
    machine("a").enter().compute(ids[:20])  # before AGIQA_STORE was a URL
    share(machine("b").enter(url).compute(ids[20:]), ids)
    a = machine("a").enter(url)
    assert share(a.shelf(), ids) == 30
    assert holds(a.shelf(), ids)
    own = a.enter().shelf()
    assert own.ids() == set(ids[:20])  # rows of a bucket stay apart from it
    assert share(shelf := machine("c").enter(url).shelf(), ids) == 30  # and a's were pushed
    assert holds(shelf, ids)


@pytest.mark.parametrize("where", ["vectors", "checksums", "ids"])
def test_a_flipped_bit_is_found_computed_and_pushed_again(
    where: str, machine: Machines, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, ids = f"s3://{bucket}/ledger", make_ids(400)
    share(machine("a").enter(url).compute(ids[:200]), ids)
    (bad,) = segments(bucket)
    share(machine("a2").enter(url).compute(ids[200:]), ids[200:])
    data = bytearray(fsspec.filesystem("s3").cat_file(bad))
    place = {"checksums": 600, "vectors": -9000, "ids": -40}[where]
    data[place] ^= 4
    fsspec.filesystem("s3").pipe_file(bad, bytes(data))
    shelf = machine("b").enter(url).shelf()
    shared = shared_shelves([shelf])
    assert pull(shared, [ids]) == 399  # its neighbours stay
    (lost,) = set(ids) - shelf.ids()
    assert where == "ids" or "expected whole rows, found 1 that fail" in caplog.text
    with pushing(shared, [ids]), shelf.writer() as writer:
        writer.add([lost], vectors_of([lost]))
    caplog.clear()
    assert share(other := machine("c").enter(url).shelf(), ids) == 400
    assert holds(other, ids)
    assert "WARNING" not in caplog.text


def test_a_hundred_flipped_bits_never_reach_a_ledger(machine: Machines, tmp_path: Path) -> None:
    url, ids = f"file://{tmp_path}/shared", make_ids(40)
    share(machine("a").enter(url).compute(ids), ids)
    (path,) = (tmp_path / "shared").rglob("*.safetensors")
    whole, rng, lost = path.read_bytes(), random.Random(0), 0
    for trial in range(100):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        shelf = machine(f"b{trial}").enter(url).shelf()
        assert pull(shared_shelves([shelf]), [ids]) >= 39
        there = sorted(shelf.ids())
        lost += 40 - len(there)
        assert holds(shelf, there)
    assert lost > 50
    assert not list((tmp_path / "shared").rglob("*.partial"))


def test_strangers_objects_are_passed_over(
    machine: Machines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, ids = f"file://{tmp_path}/shared", make_ids(40)
    share(shelf := machine("a").enter(url).compute(ids[:10]), ids)
    folder = tmp_path / "shared" / shelf.folder.name / "segments"
    digest = SharedShelf(shelf, url).shelf.rows.kind.digest
    good = vectors_of(ids)
    (folder / "notes.txt").write_text("hello")
    (folder / f"{'0' * 64}-5.safetensors").write_bytes(pickle.dumps(Path(tmp_path)) * 9)
    (folder / f"{'1' * 64}-5.safetensors").touch()
    nan, wide = np.full_like(good[10:20], np.nan), np.hstack([good[20:30]] * 2)
    for place, name, rows in ((10, digest, nan), (20, digest, wide), (30, "0" * 64, good[30:])):
        kind = Kind(name, rows.shape[1], "float16")
        name, parts = build(kind, ids[place : place + 10], rows)
        (folder / name).write_bytes(b"".join(parts))
    shelf = machine("b").enter(url).shelf()
    assert share(shelf, ids) == 10
    assert shelf.ids() == set(ids[:10])
    for found in ("0 bytes, too few", "found 10 that fail", "found rows of another layout or"):
        assert found in caplog.text, found


def test_a_newer_or_foreign_shelf_stops_with_one_line(machine: Machines, tmp_path: Path) -> None:
    url, ids = f"file://{tmp_path}/shared", make_ids(5)
    share(shelf := machine("a").enter(url).compute(ids), ids)
    path = tmp_path / "shared" / shelf.folder.name / "fingerprint.json"
    text = path.read_text()
    for new, message in (
        (text.replace('"layout": 2', '"layout": 9'), "expected layout 2, found 9; upgrade agiqa"),
        (text.replace(": 16", ": 17"), "expected width = 16, found 17"),
        (text[:40], "expected the shelf's description, found that it does not parse"),
    ):
        path.write_text(new)
        with pytest.raises(AgiqaError, match=f"^file://.*nano-[^:]*: {message}"):
            share(machine("b").enter(url).shelf(), ids)


@pytest.mark.slow
def test_three_machines_write_at_once(machine: Machines, bucket: str, work: Callable) -> None:
    url = f"s3://{bucket}/ledger"
    workers = []
    for number in range(3):  # images 0 to 299, 100 to 399, 200 to 499
        machine(str(number)).enter(url)
        workers.append(work(100 * number, 300, 0.0))
    for process in workers:
        assert process.communicate()[0].endswith("\n")
        assert process.returncode == 0
    shelf, ids = machine("later").enter(url).shelf(), make_ids(500)
    assert share(shelf, ids) == 500
    assert holds(shelf, ids)


@pytest.mark.slow
def test_a_killed_machine_pushes_when_it_comes_back(
    machine: Machines, bucket: str, work: Callable
) -> None:
    url, ids, rng = f"s3://{bucket}/ledger", make_ids(600), random.Random(1)
    a = machine("a").enter(url)
    for _ in range(3):
        process = work(0, 600, 0.02)
        acknowledged = int(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        acknowledged = max([acknowledged, *map(int, process.communicate()[0].split()[:-1])])
        assert len(a.shelf().ids()) >= acknowledged
        peek = machine(f"peek-{acknowledged}").enter(url).shelf()
        share(peek, ids)  # whatever had been pushed is whole
        assert holds(peek, sorted(peek.ids()))
        a.enter(url)
    rest = 600 - len(a.shelf().ids())
    assert 0 < rest < 600
    assert work(0, 600, 0.0).communicate()[0].split("\n")[-2] == f"pulled 0 computed {rest}"
    shelf = machine("b").enter(url).shelf()
    assert share(shelf, ids) == 600
    assert holds(shelf, ids)


def test_what_cannot_be_reached_at_the_start_is_one_line(
    machine: Machines, server: Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(url: str) -> str:
        with pytest.raises(RemoteError) as error:
            share(machine("a").enter(url).compute(make_ids(5)), make_ids(5))
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(url)
        assert str(error.value).endswith("or unset AGIQA_STORE to work alone")
        assert default_root().exists()
        return str(error.value)

    assert "bucket does not exist); correct the URL, or create the bucket" in refused(
        "s3://no-bucket/x"
    )
    assert "Protocol not known: nosuch" in refused("nosuch://bucket/x")
    assert "pip install 'agiqa[s3]'" in _without_s3fs(refused, f"s3://{bucket}/x", monkeypatch)
    server.let_in(False)
    found = refused(f"s3://{bucket}/ledger")
    assert "no access (The AWS Access Key Id you provided does not exist" in found
    assert "check the credentials" in found
    server.let_in(True)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert "no access (Unable to locate credentials)" in refused(f"s3://{bucket}/ledger")


def test_a_server_that_does_not_answer_is_no_missing_bucket() -> None:
    with pytest.raises(RemoteError, match=r"Cannot connect .*; check the network") as error:
        Remote("http://127.0.0.1:9/store").files()
    assert str(error.value).count("http://") == 1


def _without_s3fs(refused: Callable[[str], str], url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "s3fs", None)
        context.delitem(sys.modules["fsspec.registry"]._registry, "s3")
        return refused(url)


def test_a_server_that_dies_stops_nothing(
    machine: Machines,
    mortal_server: Callable[[], Server],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    server = mortal_server()
    url, ids = f"s3://{make_bucket()}/ledger", make_ids(60)
    shelf = machine("a").enter(url).shelf()
    shared = shared_shelves([shelf])
    pull(shared, [ids])
    with pushing(shared, [ids], seconds=0.05):
        with shelf.writer() as writer:
            for start in range(0, 60, 20):
                if start == 20:
                    _until(lambda: len(shared[0].ids()) == 20)
                    server.kill()
                writer.add(ids[start : start + 20], vectors_of(ids[start : start + 20]))
                writer.flush()
        _until(lambda: "goes on here" in caplog.text)
        time.sleep(0.3)
    assert caplog.text.count("extraction goes on here, and tries again") == 1
    assert f"40 vectors are not at {url} yet (they are safe here): {url}/nano" in caplog.text
    assert "then run the same command again to push them" in caplog.text
    assert holds(shelf, ids)
    with pytest.raises(RemoteError, match="check the network and the server's address"):
        share(shelf, ids)
    mortal_server()
    fsspec.filesystem("s3").mkdir(url.split("/")[2])
    caplog.clear()
    share(shelf, ids)
    assert f"60 vectors to {url}" in caplog.text  # the server had lost the first 20, too
    assert share(other := machine("b").enter(url).shelf(), ids) == 60
    assert holds(other, ids)


def test_who_may_only_read_takes_and_is_told_once(
    machine: Machines,
    server: Server,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url, ids = f"s3://{bucket}/ledger", make_ids(20)
    share(machine("a").enter(url).compute(ids[:10]), ids)
    for name, value in server.reader().items():
        monkeypatch.setenv(name, value)
    server.let_in(False)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    shelf = machine("b").enter(url).compute(ids[10:])
    assert share(shelf, ids) == 10
    assert holds(shelf, ids)
    assert f"10 vectors are not at {url} yet (they are safe here): {url}/nano" in caplog.text
    assert "no access (" in caplog.text
    assert len([record for record in caplog.records if record.levelno > logging.INFO]) == 1


def test_what_was_finished_before_a_failure_is_pushed(machine: Machines, bucket: str) -> None:
    url, ids = f"s3://{bucket}/ledger", make_ids(10)
    shelf = machine("a").enter(url).shelf()
    machine("a").compute(ids[:4])
    with pytest.raises(AgiqaError, match="full"), pushing(shared_shelves([shelf]), [ids]):
        raise AgiqaError("disk full")
    assert share(machine("b").enter(url).shelf(), ids) == 4


def test_an_interruption_waits_for_no_server(machine: Machines, bucket: str) -> None:
    shelf = machine("a").enter(f"s3://{bucket}/ledger").compute(make_ids(4))
    with pytest.raises(KeyboardInterrupt), pushing(shared_shelves([shelf]), [make_ids(4)]):
        raise KeyboardInterrupt
    assert segments(bucket) == []


def test_without_a_url_nothing_is_shared(machine: Machines, tmp_path: Path) -> None:
    shelf = machine("a").enter(str(tmp_path / "folder")).compute(make_ids(3))
    assert shared_shelves([shelf]) == []
    machine("a").enter("s3://bucket/ledger")
    assert shared_shelves([shelf], own_folder=True) == []
    assert default_root().is_relative_to(tmp_path / "machine-a" / "agiqa" / "shared")


def test_a_password_in_a_url_is_not_shown(machine: Machines) -> None:
    url = "ftp://anna:secret@127.0.0.1:1/ledger"
    shelf = machine("a").enter(url).shelf()
    with pytest.raises(RemoteError, match=r"^ftp://127\.0\.0\.1:1/ledger/nano-") as error:
        share(shelf, make_ids(3))
    assert "secret" not in str(error.value) + str(default_root())


@pytest.fixture
def work(python: list[str]) -> Callable[..., "subprocess.Popen[str]"]:
    """Starts worker.py on the machine entered last."""
    command = [*python, "--import", "s3fs", str(Path(__file__).with_name("worker.py"))]

    def start(start: int, count: int, pause: float) -> "subprocess.Popen[str]":
        given = [str(start), str(count), str(pause)]
        return subprocess.Popen([*command, *given], stdout=subprocess.PIPE, text=True)

    return start


def _until(done: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


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
