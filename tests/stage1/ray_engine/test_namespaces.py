"""Nodes in network namespaces, which see neither the driver's disk nor its memory: a bucket alone.

Each node has an address of its own on a bridge, and an empty tmpfs where the driver has images and
ledger. GPUs are Ray's numbers alone here: they part decoding tasks from the actors.
"""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import psutil
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage1.extract import extract
from agiqa.stage1.ray_cluster import RayCluster
from kit.colours import Colours
from kit.machines import Server, free_port, make_bucket, use
from kit.stored_rows import files

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray has warnings of its own

NETWORK, IMAGES, VECTORS = "10.231.7", 24, 2
SMALL = ("--object-store-memory", str(80 << 20), "--include-log-monitor=false")


def ip(line: str) -> None:
    done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {line}: {done.stderr.strip() or done.stdout.strip()}")


def ray(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts", *arguments]


@pytest.fixture(scope="module")
def bridge() -> Iterator[list[str]]:
    """Two namespaces on a bridge; their names."""
    mark = f"agiqa{os.getpid() % 10000}"
    names = [f"{mark}n{row}" for row in range(2)]
    try:
        ip(f"link add {mark} type bridge")
        ip(f"addr add {NETWORK}.1/24 dev {mark}")
        ip(f"link set {mark} up")
        for row, name in enumerate(names):
            ip(f"netns add {name}")
            ip(f"link add {name}a type veth peer name {name}b")
            ip(f"link set {name}a master {mark} up")
            ip(f"link set {name}b netns {name}")
            ip(f"-n {name} addr add {NETWORK}.{row + 10}/24 dev {name}b")
            ip(f"-n {name} link set {name}b up")
            ip(f"-n {name} link set lo up")
    except OSError as error:
        for line in (*[f"netns del {name}" for name in names], f"link del {mark}"):
            with suppress(OSError):
                ip(line)
        pytest.skip(f"no network namespaces here: {error}")
    yield names
    for name in names:
        ip(f"link del {name}a")
        ip(f"netns del {name}")
    ip(f"link del {mark}")


@pytest.fixture
def server(
    bridge: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: list[str]
) -> Iterator[Server]:
    pytest.importorskip("moto.server", reason="moto is not installed: pip install -e '.[dev]'")
    server = Server(python, free_port(), tmp_path / "moto.log", f"{NETWORK}.1")
    use(server, monkeypatch)
    yield server
    server.kill()


@pytest.fixture
def apart(
    ray_environment: Path, bridge: list[str], server: Server, tmp_path: Path
) -> Iterator[tuple[str, Path]]:
    """A cluster whose nodes have nothing in a folder of the driver's: address, and folder."""
    import ray as library

    hidden, port = tmp_path / "driver", free_port()
    hidden.mkdir()
    address = f"{NETWORK}.1:{port}"
    head = ("start", "--head", f"--node-ip-address={NETWORK}.1", f"--port={port}", "--block")
    commands = [ray(*head, "--num-cpus=0", "--include-dashboard=false", "--no-monitor", *SMALL)]
    for row, name in enumerate(bridge):
        node = ray("start", f"--address={address}", f"--node-ip-address={NETWORK}.{row + 10}")
        node += ["--num-cpus=1", "--num-gpus=1", "--block", *SMALL]
        shell = 'mount -t tmpfs none "$0" && exec "$@"'
        commands.append(["ip", "netns", "exec", name, "sh", "-c", shell, str(hidden), *node])
    log = (tmp_path / "ray.log").open("wb")
    home = {"XDG_CACHE_HOME": str(tmp_path / "node")}
    nodes = []

    def start(command: list[str]) -> None:
        nodes.append(subprocess.Popen(command, env=os.environ | home, stdout=log, stderr=log))

    def wait_for(condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < until, (tmp_path / "ray.log").read_text()
            time.sleep(0.2)

    try:
        start(commands[0])
        wait_for(lambda: b"Ray runtime started" in (tmp_path / "ray.log").read_bytes())
        library.init(address=address, log_to_driver=False, logging_level="ERROR")
        for count, command in enumerate(commands[1:], 1):  # together they take each other's names
            start(command)
            wait_for(lambda: library.cluster_resources().get("GPU", 0) == count)  # noqa: B023
        yield address, hidden
    finally:
        library.shutdown()
        for node in nodes:  # with all that it has started: to end gracefully takes half a minute
            for process in (*psutil.Process(node.pid).children(recursive=True), node):
                process.kill()
            node.wait(60)
        log.close()


def test_nodes_that_share_a_bucket_alone(
    apart: tuple[str, Path],
    make_images: Callable[[int], ImagesTable],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (address, hidden), table, bucket = apart, make_images(IMAGES), make_bucket()
    plain, extractor = tmp_path / "plain.zarr", Colours()
    extract(table, extractor, plain, ledger=tmp_path / "plain", workers=0)
    for path in table.paths():
        fsspec.filesystem("s3").put(str(path), f"{bucket}/images/{path.name}")
    there = dataclasses.replace(table, root=Path())
    monkeypatch.setenv("XDG_CACHE_HOME", str(hidden / "cache"))
    monkeypatch.setenv("AGIQA_STORE", f"s3://{bucket}/ledger")
    engine = RayCluster(address, images=f"s3://{bucket}/images")
    shared = extract(there, extractor, hidden / "shared.zarr", engine=engine)
    assert shared.computed == IMAGES * VECTORS
    assert files(hidden / "shared.zarr") == files(plain)
    rows = [name.rpartition("-")[2] for name in fsspec.filesystem("s3").find(f"{bucket}/ledger")]
    written = sum(int(name.partition(".")[0]) for name in rows if name.endswith(".safetensors"))
    assert written == IMAGES * VECTORS  # by the nodes, and none again by the driver

    monkeypatch.delenv("AGIQA_STORE")  # now vectors stream to the driver
    one = dataclasses.replace(engine, actors=1)
    streamed = extract(there, extractor, hidden / "b.zarr", ledger=hidden / "l", engine=one)
    assert streamed.computed == IMAGES * VECTORS
    assert files(hidden / "b.zarr") == files(plain)

    seen = hidden / "images"  # by the driver alone
    seen.mkdir()
    for path in table.paths():
        (seen / path.name).write_bytes(path.read_bytes())
    here = dataclasses.replace(table, root=seen)
    disk = dataclasses.replace(one, images="")
    with pytest.raises(
        AgiqaError, match=rf"node {NETWORK}\.1[01] .*: {IMAGES} images are not"
    ) as no:
        extract(here, extractor, hidden / "c.zarr", ledger=hidden / "m", engine=disk)
    assert "--images-at URL" in str(no.value)
    assert "\n" not in str(no.value)
