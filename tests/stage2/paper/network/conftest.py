"""A tiny network with weights by the fill rule."""

from collections.abc import Callable, Mapping

import pytest
import torch

from agiqa.stage2.paper.network import PaperConfig, PaperRegressor
from agiqa.stage2.paper.weights import reference_name

TINY = PaperConfig(image_size=32, patch_size=4, width=16, heads=2, semantic_width=12, swin_mlp=24)


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
