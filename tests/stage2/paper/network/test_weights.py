"""The authors' names: every live weight in its place, or an error that lists what is wrong."""

import pytest
import torch

from agiqa.core.errors import AgiqaError
from agiqa.stage2.paper.network import PaperRegressor
from agiqa.stage2.paper.weights import load_reference_state, reference_name

State = dict[str, torch.Tensor]


def test_every_weight_comes_to_its_place(tiny: PaperRegressor, tiny_state: State) -> None:
    load_reference_state(tiny, tiny_state, "file")
    for name, weight in tiny.named_parameters():
        assert torch.equal(weight, tiny_state[reference_name(name)]), name
    assert tiny.backbone.class_token.requires_grad


def test_names_are_the_authors(tiny: PaperRegressor, tiny_state: State) -> None:
    assert {
        "vit.pos_embed",
        "vit.blocks.9.mlp.fc2.bias",
        "tablock2.1.c_v.weight",
        "swintransformer1.layers.1.blocks.0.attn.relative_position_bias_table",
        "fc_score.3.weight",
        "fc4096_784_a2.0.weight",
        "output_fc.bias",
    } <= tiny_state.keys()
    assert len(tiny_state) == len(list(tiny.parameters()))


def test_half_precision_is_taken(tiny: PaperRegressor, tiny_state: State) -> None:
    load_reference_state(tiny, {n: t.half() for n, t in tiny_state.items()}, "file")
    assert tiny.head.weight.dtype == torch.float32
    assert torch.equal(tiny.head.weight, tiny_state["output_fc.weight"].half().float())


def _refused(tiny: PaperRegressor, state: State, *parts: str) -> None:
    before = {name: weight.clone() for name, weight in tiny.named_parameters()}
    with pytest.raises(AgiqaError) as caught:
        load_reference_state(tiny, state, "file.pt")
    assert "\n" not in str(caught.value)
    for part in ("file.pt", *parts):
        assert part in str(caught.value)
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.named_parameters())


def test_missing_weights_are_listed(tiny: PaperRegressor, tiny_state: State) -> None:
    less = {name: t for name, t in tiny_state.items() if name != "gating.bias"}
    _refused(tiny, less, "found 1 missing (gating.bias)")
    _refused(tiny, {}, f"found {len(tiny_state)} missing (vit.cls_token, vit.pos_embed, ")
    _refused(tiny, {}, f" and {len(tiny_state) - 20} more)")


def test_unexpected_weights_are_listed(tiny: PaperRegressor, tiny_state: State) -> None:
    more = {"gating2.bias": torch.ones(3), "fc4096_784_c.weight": torch.ones(3)}
    _refused(tiny, tiny_state | more, "2 unexpected (gating2.bias, fc4096_784_c.weight)")
    # A buffer's name is only a buffer's where the authors have one.
    _refused(tiny, tiny_state | {"attn_mask": torch.ones(3)}, "1 unexpected (attn_mask)")


def test_misshapen_weights_are_listed(tiny: PaperRegressor, tiny_state: State) -> None:
    wrong = tiny_state | {"conv1.weight": torch.ones(16, 48, 1, 1), "gating.bias": torch.ones(4)}
    _refused(
        tiny,
        wrong,
        "2 misshapen (conv1.weight (16, 48, 1, 1) instead of (16, 64, 1, 1), ",
        "gating.bias (4,) instead of (3,)",
        "16 wide, 32 px in patches of 4",
        "paper.network",
    )


def test_another_architecture_shows_all_kinds(tiny: PaperRegressor) -> None:
    resnet = {"conv1.weight": torch.zeros(64, 3, 7, 7), "bn1.weight": torch.zeros(64)}
    _refused(tiny, resnet, "missing", "1 unexpected (bn1.weight)", "1 misshapen (conv1.weight")
