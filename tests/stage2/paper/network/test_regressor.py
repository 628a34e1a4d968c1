"""What holds for the paper's network whatever its weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from agiqa.core.errors import AgiqaError
from agiqa.stage2.paper.network import (
    NetworkOutput,
    PaperConfig,
    PaperRegressor,
    StochasticDepth,
    TransposedAttention,
    WindowAttention,
)

Inputs = tuple[Tensor, Tensor]


def _whole(prediction: NetworkOutput) -> tuple[Tensor, Tensor, Tensor]:
    assert prediction.quality_map is not None
    return prediction.score, prediction.gate, prediction.quality_map


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_is_its_images_one_by_one(tiny: PaperRegressor, inputs: Inputs, count: int) -> None:
    image, semantic = inputs
    with torch.inference_mode():
        together = _whole(tiny(image[:count], semantic[:count]))
        alone = [_whole(tiny(image[n : n + 1], semantic[n : n + 1])) for n in range(count)]
    for part, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(part, torch.cat(parts), rtol=1e-5, atol=1e-6)
    assert together[0].shape == (count,)
    assert together[1].shape == (count, 3)
    assert together[2].shape == (count, 8, 8)


def test_each_semantic_vector_has_its_own_expert(tiny: PaperRegressor, inputs: Inputs) -> None:
    image, semantic = inputs
    with torch.inference_mode():
        score = tiny(image, semantic).score
        swapped = tiny(image, semantic.flip(1)).score
        same_image = tiny(image[:1].expand(5, -1, -1, -1), semantic).score
    assert (score - swapped).abs().min() > 1e-5
    assert (score - same_image)[1:].abs().min() > 1e-5
    assert score[0] == pytest.approx(float(same_image[0]), abs=1e-6)


def test_the_gate_mixes_linearly_without_softmax(tiny: PaperRegressor, inputs: Inputs) -> None:
    with torch.no_grad():
        tiny.gate.weight.zero_()
        scores = []
        for weight in (-1.0, 0.0, 2.0):
            tiny.gate.bias.fill_(weight)
            prediction = tiny(*inputs)
            assert torch.equal(prediction.gate, torch.full((5, 3), weight))
            scores.append(prediction.score)
    torch.testing.assert_close(scores[1], tiny.head.bias.expand(5))
    torch.testing.assert_close(scores[2] - scores[1], -2 * (scores[0] - scores[1]))


def test_every_weight_there_is_gets_a_gradient(tiny: PaperRegressor, inputs: Inputs) -> None:
    tiny.train()(*inputs).score.square().mean().backward()
    assert [name for name, weight in tiny.named_parameters() if weight.grad is None] == []
    without = {name for name, weight in tiny.named_parameters() if not weight.grad.any()}
    assert without == set()
    assert len(tiny.backbone.blocks) == 10


def test_checkpointing_changes_neither_loss_nor_gradients(
    tiny: PaperRegressor, inputs: Inputs
) -> None:
    found = []
    for checkpointing in (False, True):
        tiny.gradient_checkpointing = checkpointing
        tiny.train().zero_grad()
        torch.manual_seed(3)
        loss = tiny(*inputs).score.square().mean()
        loss.backward()
        found.append((loss.detach(), [weight.grad.clone() for weight in tiny.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0])
    for one, two in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, two)


def test_checkpointing_keeps_less_for_the_backward_pass(
    tiny: PaperRegressor, inputs: Inputs
) -> None:
    kept = []
    for checkpointing in (False, True):
        tiny.gradient_checkpointing = checkpointing
        sizes: list[int] = []

        def count(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            tiny.train()(*inputs)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_chance_acts_in_training_alone(tiny: PaperRegressor, inputs: Inputs) -> None:
    with torch.no_grad():
        assert torch.equal(tiny(*inputs).score, tiny(*inputs).score)
        tiny.train()
        assert not torch.equal(tiny(*inputs).score, tiny(*inputs).score)
        still = PaperRegressor(replace(tiny.config, dropout=0.0, drop_path=0.0)).train()
        assert torch.equal(still(*inputs).score, still(*inputs).score)


def test_scores_are_not_rounded_under_autocast(tiny: PaperRegressor, inputs: Inputs) -> None:
    with torch.inference_mode():
        exact = tiny(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            found = tiny(*inputs)
    assert found.score.dtype == found.gate.dtype == torch.float32
    torch.testing.assert_close(found.score, exact.score, rtol=0, atol=0.01)
    assert not torch.equal(found.score, found.score.bfloat16().float())


# Parts


@pytest.mark.parametrize("rows", [1, 5, 12, 1536])
def test_transposed_attention_is_its_formula(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agiqa.stage2.paper.network.ROWS", rows)
    torch.manual_seed(0)
    block = TransposedAttention(positions=6, dropout=0.5).double().eval()
    x = torch.randn(2, 12, 6, dtype=torch.float64)
    with torch.no_grad():
        found = block(x)
    for image, ours in zip(x.numpy(), found.numpy(), strict=True):
        q, k, v = (
            image @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
            for layer in (block.query, block.key, block.value)
        )
        attention = np.exp(q @ k.T / np.sqrt(6))
        mixed = (attention / attention.sum(axis=1, keepdims=True)) @ v
        np.testing.assert_allclose(ours, image + mixed.T.reshape(12, 6))


def _reached(shift: int, row: int, column: int) -> set[tuple[int, int]]:
    """Patches of an 8 x 8 grid that the patch attends to, by the gradient."""
    torch.manual_seed(0)
    attention = WindowAttention(width=8, heads=2, window=4, grid=8, shift=shift)
    x = torch.randn(1, 8, 8, 8, requires_grad=True)
    attention(x)[0, row, column].sum().backward()
    assert x.grad is not None
    rows, columns = np.nonzero(x.grad[0].abs().sum(dim=-1).numpy() > 1e-12)
    return set(zip(rows.tolist(), columns.tolist(), strict=True))


def test_windows_see_their_own_patches() -> None:
    assert _reached(0, 0, 0) == {(r, c) for r in range(4) for c in range(4)}
    assert _reached(0, 5, 3) == {(r, c) for r in range(4, 8) for c in range(4)}


def test_shifted_windows_do_not_join_what_lies_apart() -> None:
    assert _reached(2, 3, 4) == {(r, c) for r in range(2, 6) for c in range(2, 6)}
    assert _reached(2, 0, 0) == {(r, c) for r in range(2) for c in range(2)}
    assert _reached(2, 0, 3) == {(r, c) for r in range(2) for c in range(2, 6)}
    assert _reached(2, 7, 7) == {(r, c) for r in range(6, 8) for c in range(6, 8)}


def test_position_bias_depends_on_the_offset_alone() -> None:
    attention = WindowAttention(width=8, heads=2, window=4, grid=4, shift=0)
    bias = attention._bias().detach().view(2, 4, 4, 4, 4)
    assert torch.equal(bias[:, 0, 0, 1, 2], bias[:, 2, 1, 3, 3])
    assert not torch.equal(bias[:, 0, 0, 1, 2], bias[:, 1, 2, 0, 0])
    assert attention.position_bias.unique().numel() == bias.unique().numel() == 98


def test_stochastic_depth_leaves_out_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    ones = torch.ones(4000, 2, 3)
    kept = StochasticDepth(0.25)(ones)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(kept.amin(dim=(1, 2)), kept.amax(dim=(1, 2)))
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)
    assert StochasticDepth(0.25).eval()(ones) is ones


def test_norms_have_the_eps_of_their_parts(tiny: PaperRegressor) -> None:
    """Too small a difference for the golden tensors to tell."""
    for part, eps in ((tiny.backbone, 1e-6), (tiny.swin1, 1e-5), (tiny.swin2, 1e-5)):
        norms = [module for module in part.modules() if isinstance(module, torch.nn.LayerNorm)]
        assert {norm.eps for norm in norms} == {eps}


def test_stochastic_depth_rises_over_each_stage(tiny: PaperRegressor) -> None:
    for stage in (tiny.swin1, tiny.swin2):
        depths = [module for module in stage.modules() if isinstance(module, StochasticDepth)]
        assert [depth.rate for depth in depths] == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"image_size": 220}, "image size by patch size, found 220 by 8"),
        ({"image_size": 240}, "patches a side by Swin window, found 30 by 4"),
        ({"width": 760}, "width by heads, found 760 by 12"),
        ({"width": 12, "heads": 4}, "half the width by Swin heads, found 6 by 4"),
        ({"image_size": 4}, "image size by patch size, found 4 by 8"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(changed: dict[str, int], line: str) -> None:
    with pytest.raises(AgiqaError, match=line) as caught:
        PaperConfig(**changed)
    assert "\n" not in str(caught.value)
