"""The reference's golden tensors, weights by the fill rule, and a tiny network."""

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from agiqa.stage2.paper.network import PaperConfig, PaperRegressor, reference_name

REPOSITORY = Path(__file__).resolve().parents[4]
TINY = PaperConfig(image_size=32, patch_size=4, width=16, heads=2, semantic_width=12, swin_mlp=24)
AS_IF_100_WIDE = ("pos_embed", "cls_token", "relative_position_bias_table")


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Threads of tiny networks wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Tensors that the reference implementation computed."""
    folder = Path(os.environ.get("AGIQA_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
    if not (folder / "ma_agiqa_regressor.npz").is_file():
        pytest.skip(f"no golden tensors in {folder}: set AGIQA_GOLDEN")
    return folder


@pytest.fixture(scope="session")
def keys(golden: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' parameters, those that never run with them."""
    found = json.loads((golden / "ma_agiqa_regressor.keys.json").read_text())
    return {name: tuple(shape) for name, shape in found.items()}


@pytest.fixture(scope="session")
def fill() -> Callable[[str, tuple[int, ...]], torch.Tensor]:
    """The rule by which the golden tensors' weights and inputs follow from their names."""

    def tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
        u = generator.random(int(np.prod(shape)), dtype=np.float32).reshape(shape) * 2 - 1
        if key.startswith("input."):
            return torch.from_numpy(u)
        if len(shape) > 1:
            fan_in = 100 if key.endswith(AS_IF_100_WIDE) else np.prod(shape[1:])
            return torch.from_numpy(u * np.float32(0.6 * np.sqrt(3 / fan_in)))
        near = 1 if "norm" in key and key.endswith("weight") else 0
        return torch.from_numpy(near + np.float32(0.1) * u)

    return tensor


@pytest.fixture
def tiny() -> PaperRegressor:
    """The tiny network, its random weights always the same, in eval mode."""
    torch.manual_seed(0)
    return PaperRegressor(TINY).eval()


@pytest.fixture
def tiny_state(tiny: PaperRegressor, fill: Callable[..., torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the tiny network under the authors' names, by the fill rule."""
    names = {reference_name(name): weight.shape for name, weight in tiny.named_parameters()}
    return {name: fill(name, tuple(shape)) for name, shape in names.items()}


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Images and semantic vectors of five for the tiny network."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(5, 3, 32, 32, generator=generator) * 2 - 1
    return image, torch.randn(5, 2, 12, generator=generator)


@pytest.fixture(scope="session")
def timm_names() -> Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """A tiny ViT of timm's, out of the authors' names, with what timm has behind the blocks."""

    def rename(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        vit = {n.removeprefix("vit."): t for n, t in state.items() if n.startswith("vit.")}
        behind = {"norm.weight": torch.ones(16), "head.weight": torch.ones(10, 16)}
        last = {
            n.replace("blocks.9", "blocks.10"): t + 1 for n, t in vit.items() if "blocks.9" in n
        }
        return vit | behind | last

    return rename
