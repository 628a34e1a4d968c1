"""What a CUDA device makes is what a CPU makes, nearly so in half precision, and memory may end.

Skipped where there is none. AGIQA_GPU=cpu lets the CPU stand in, to try these tests themselves.
Other tests with the mark `gpu` run on either: the pipeline itself takes the device that is there.
"""

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agiqa.core.params import Semantic, Visual
from agiqa.stage1.extractors import Extractor, VisionExtractor, semantic_extractor
from kit.families import DUAL_ENCODERS, LMMS

pytestmark = pytest.mark.gpu
FLOAT32, HALF = 1e-4, 2e-2  # how far a vector may be off, of its own length


@pytest.fixture(autouse=True)
def device() -> torch.device:
    """The CUDA device."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("AGIQA_GPU") == "cpu":
        return torch.device("cpu")
    pytest.skip("needs a CUDA device: run benchmarks/gpu/run.sh where there is one")


@pytest.fixture
def on_cpu() -> Callable[[Callable[[], Any]], Any]:
    """Makes what it is given while models are put on the CPU."""

    def make(work: Callable[[], Any]) -> Any:
        with pytest.MonkeyPatch.context() as changed:
            for module in ("extractors.loading", "mplug_owl2.loading"):
                changed.setattr(f"agiqa.stage1.{module}.device", lambda: torch.device("cpu"))
            return work()

    return make


def vectors(extractor: Extractor, count: int = 3, side: int = 61) -> list[np.ndarray]:
    """Of so many images of noise, a matrix `(count, D)` for each of the extractor's vectors."""
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 256, (side - 21 * (n % 2), side, 3), dtype=np.uint8))
        for n in range(count)
    ]
    samples = [extractor.preprocess(image) for image in images]
    return [matrix.astype(np.float32) for matrix in
            extractor.extract(samples, range(len(extractor.vectors)))]  # fmt: skip


def far(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest distance of two vectors, of the second's length."""
    return max(
        float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("family", [*LMMS, *DUAL_ENCODERS])
def test_a_family_has_the_vectors_of_the_cpu(
    family: str, family_folder: Callable[[str], Path], on_cpu: Callable[..., Any]
) -> None:
    settings = Semantic(model=str(family_folder(family)), batch_size=4, precision="float32")
    there = on_cpu(lambda: vectors(semantic_extractor(settings)))
    assert far(vectors(semantic_extractor(settings)), there) < FLOAT32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_half_precision_stays_close(
    family: str, dtype: str, family_folder: Callable[[str], Path]
) -> None:
    settings = Semantic(model=str(family_folder(family)), batch_size=4, precision="float32")
    half = dataclasses.replace(settings, dtype=dtype)
    whole = vectors(semantic_extractor(settings))
    assert 0 < far(vectors(semantic_extractor(half)), whole) < HALF


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_visual_backbone_has_the_vectors_of_the_cpu(
    attention: str, build_vision: Callable[..., Path], tmp_path: Path, on_cpu: Callable[..., Any]
) -> None:
    settings = Visual(model=str(build_vision(tmp_path / "tower")), layers=(1, 3), batch_size=4,
                      image_size=48, attention=attention, precision="float32")  # fmt: skip
    there = on_cpu(lambda: vectors(VisionExtractor(settings)))
    assert far(vectors(VisionExtractor(settings)), there) < FLOAT32


def test_a_batch_that_does_not_fit_is_halved(
    device: torch.device,
    build_vision: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The allocator has 160 MiB more than the model: 512 images of 224 px alone take 308 MB."""
    if device.type != "cuda":
        pytest.skip("needs CUDA's allocator; tests/stage1/test_memory_and_overflow.py pretends")
    settings = Visual(model=str(build_vision(tmp_path / "tower")), layers=(1, 3), closeup=0,
                      image_size=224, batch_size=512, precision="float32")  # fmt: skip
    roomy = VisionExtractor(settings)
    whole = vectors(roomy, count=512)
    tight = VisionExtractor(settings)
    tight.load()
    torch.cuda.empty_cache()
    least = torch.cuda.memory_reserved() + 160 * 2**20
    torch.cuda.set_per_process_memory_fraction(least / torch.cuda.mem_get_info()[1])
    try:
        with caplog.at_level(logging.WARNING):
            halved = vectors(tight, count=512)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "Memory ran out with 512 images at a time" in caplog.text
    assert far(halved, whole) < FLOAT32
