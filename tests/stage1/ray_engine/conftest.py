"""A real Ray cluster of two nodes on this machine, as small as it goes."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agiqa.core.params import Semantic
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable
from kit.colours import NOTES
from kit.ray_nodes import QUICK, SMALL, WORDS

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def ray_environment(tmp_path_factory: pytest.TempPathFactory, python: list[str]) -> Iterator[Path]:
    """What processes on nodes inherit: this checkout, the tests' kit, a file for notes."""
    pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'agiqa[ray]'")
    notes = tmp_path_factory.mktemp("notes") / "batches"
    notes.touch()
    paths = [str(TESTS.parent / "pipeline"), str(TESTS), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv("OMP_NUM_THREADS", "1")
        for name, value in QUICK.items():
            patch.setenv(name, value)
        patch.setenv(WORDS, json.dumps(python))
        patch.setenv(NOTES, str(notes))
        yield notes


@pytest.fixture(scope="module")
def cluster(ray_environment: Path) -> Iterator[Any]:
    """Two nodes, and this process joined to them."""
    import ray
    from ray.cluster_utils import Cluster

    alone = {"include_dashboard": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args=SMALL | alone)
    cluster.add_node(**SMALL)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="session")
def make_images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], ImagesTable]:
    """A table of so many small images, all different."""

    def make(count: int) -> ImagesTable:
        images = tmp_path_factory.mktemp("data") / "images"
        images.mkdir()
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{number:03d}.png")
        return folder.prepare(images, "many")

    return make


@pytest.fixture
def semantic(tiny_lmm: Path) -> Semantic:
    return Semantic(name="tiny", model=str(tiny_lmm), batch_size=4, workers=0)
