"""Settings that name the tiny image-text model of tests/conftest.py, and images for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agiqa.core.params import Semantic, Visual
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads of tiny models wait for each other; on a busy machine five times longer in all."""
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of processes that a test starts
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def semantic(tiny_lmm: Path) -> Semantic:
    return Semantic(name="tiny", model=str(tiny_lmm), batch_size=4)


@pytest.fixture
def visual(tiny_lmm: Path) -> Visual:
    return Visual(
        name="tiny-vision",
        model=str(tiny_lmm),
        layers=(1, 3),
        image_size=48,
        closeup=64,
        batch_size=4,
    )


@pytest.fixture
def table(write_images: Callable[..., Path]) -> ImagesTable:
    """Ten real little images."""
    return folder.prepare(write_images(*[f"{row}.png" for row in range(10)]), "ten")
