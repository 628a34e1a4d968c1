"""The network at full size is the reference's, stage by stage; so is its preprocessing.

121 million weights and 280 GFLOP an image: about 10 s on two cores, 1.5 GB.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from agiqa.data.images import decode
from agiqa.stage2.paper.inputs import resized
from agiqa.stage2.paper.network import SEMANTIC, NetworkOutput, PaperConfig, PaperRegressor
from agiqa.stage2.paper.weights import DEAD, load_reference_state, reference_name

Keys = dict[str, tuple[int, ...]]
Stages = dict[str, Tensor]
TOLERANCE = 1e-4  # of a stage's spread


def _grid_first(x: Tensor) -> Tensor:
    """Ours `(B, h, w, C)` in the reference's layout `(B, C, h, w)`."""
    return x.permute(0, 3, 1, 2)


def _same(x: Tensor) -> Tensor:
    return x


# The reference's name of a stage: our module, and our output in the reference's layout.
STAGES: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    **{f"vit_block_{block}": (f"backbone.blocks.{block}", _same) for block in (6, 7, 8, 9)},
    "tab1": ("channels1.1", _same),
    "conv1": ("reduce1", _same),
    "swin1": ("swin1", _grid_first),
    "tab2": ("channels2.1", _same),
    "swin2": ("swin2", _grid_first),
    "patch_score": ("patch_score", _same),
    "patch_weight": ("patch_weight", _same),
    "expert_visual": ("visual_expert", _same),
    "expert_semantic_content": ("semantic_experts.semantic_content", _same),
    "expert_coherence": ("semantic_experts.coherence", _same),
    "gate": ("gate", _same),
}


@pytest.fixture(scope="module")
def regressor(keys: Keys, fill: Callable[..., Tensor]) -> PaperRegressor:
    """The full size with the authors' file by the fill rule, dead weights among it."""
    network = PaperRegressor(PaperConfig()).eval()
    load_reference_state(network, {key: fill(key, shape) for key, shape in keys.items()}, "golden")
    return network


@pytest.fixture(scope="module")
def computed(
    regressor: PaperRegressor, fill: Callable[..., Tensor]
) -> tuple[NetworkOutput, Stages]:
    """What the network says of the golden batch of 3, and every stage on the way."""
    stages: Stages = {}

    def keep(stage: str, layout: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        def hook(module: object, given: object, output: Tensor) -> None:
            stages[stage] = layout(output)

        return hook

    handles = [
        regressor.get_submodule(module).register_forward_hook(keep(stage, layout))
        for stage, (module, layout) in STAGES.items()
    ]
    image = fill("input.image", (3, 3, 224, 224))
    semantic = torch.cat([fill(f"input.{name}", (3, 1, 4096)) for name in SEMANTIC], dim=1)
    with torch.inference_mode():
        prediction = regressor(image, semantic)
    for handle in handles:
        handle.remove()
    return prediction, stages


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "ma_agiqa_regressor.npz") as file:
        return dict(file)


def test_every_stage_of_the_reference_is_compared(expected: dict[str, np.ndarray]) -> None:
    assert {name.partition("__")[0] for name in expected} == {"score", *STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_the_references(
    stage: str, computed: tuple[NetworkOutput, Stages], expected: dict[str, np.ndarray]
) -> None:
    ours = computed[1][stage].numpy()
    if stage in expected:
        theirs = expected[stage]
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * theirs.std())
        return
    mean, spread = expected[f"{stage}__mean_std"]
    theirs = expected[f"{stage}__stride997"]
    flat = ours.reshape(len(ours), -1)
    np.testing.assert_allclose(flat[:, ::997], theirs, rtol=0, atol=TOLERANCE * spread)
    assert abs(flat.mean(dtype=np.float64) - mean) < TOLERANCE * spread
    assert abs(flat.std(dtype=np.float64) - spread) < TOLERANCE * spread


def test_the_score_is_the_references(
    computed: tuple[NetworkOutput, Stages], expected: dict[str, np.ndarray]
) -> None:
    theirs = expected["score"][:, 0]
    ours = computed[0].score.numpy()
    assert ours.shape == (3,)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * theirs.std())


def test_gate_and_quality_map_are_the_stages(
    computed: tuple[NetworkOutput, Stages], expected: dict[str, np.ndarray]
) -> None:
    prediction = computed[0]
    assert prediction.quality_map is not None
    np.testing.assert_allclose(prediction.gate.numpy(), expected["gate"], atol=1e-5)
    product = (expected["patch_score"] * expected["patch_weight"]).reshape(3, 28, 28)
    np.testing.assert_allclose(prediction.quality_map.numpy(), product, atol=1e-5)


def test_live_and_dead_names_are_the_authors_and_shapes_agree(
    keys: Keys, regressor: PaperRegressor
) -> None:
    live = {reference_name(name): tuple(w.shape) for name, w in regressor.named_parameters()}
    dead = {name: shape for name, shape in keys.items() if name.startswith(DEAD)}
    assert not live.keys() & dead.keys()
    assert live | dead == keys
    assert sum(weight.numel() for weight in regressor.parameters()) == 121_211_958
    for prefix in DEAD:
        assert any(name.startswith(prefix) for name in dead), prefix


@pytest.mark.parametrize(
    "file", ["midjourney_normal_129.jpg", "AttnGAN_normal_212.jpg", "landscape_512x320.png"]
)
def test_resize_is_the_references_within_one_grey_level(golden: Path, file: str) -> None:
    theirs = np.load(golden / "preprocessing/regressor_224.npz")[f"regressor_224/{file}"]
    ours = resized(decode(golden / "preprocessing" / file), 224)
    assert ours.dtype == np.uint8
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
