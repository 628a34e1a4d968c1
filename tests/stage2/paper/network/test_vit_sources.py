"""The backbone's weights from wherever people have them: the same hidden states, or one line."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from agiqa.core.errors import AgiqaError
from agiqa.stage2.paper.network import PaperRegressor
from agiqa.stage2.paper.weights import load_vit

State = dict[str, torch.Tensor]


@pytest.fixture
def timm_state(timm_names: Callable[..., State], tiny_state: State) -> State:
    return timm_names(tiny_state)


@pytest.fixture
def save_transformers(tmp_path: Path) -> Callable[..., Path]:
    """Saves a tiny random ViT of transformers that fits the tiny network, or nearly."""

    def save(kind: str = "ViTModel", **changed: Any) -> Path:
        sizes = {
            "hidden_size": 16,
            "num_hidden_layers": 11,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": 32,
            "patch_size": 4,
            "layer_norm_eps": 1e-6,
            "initializer_range": 0.3,
        }
        torch.manual_seed(5)
        model = getattr(transformers, kind)(transformers.ViTConfig(**sizes | changed))
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                torch.nn.init.normal_(weight, 1.0 if name.endswith("weight") else 0.0, 0.1)
        model.save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return save


def _one_line(regressor: PaperRegressor, source: Any, *parts: str) -> None:
    before = {name: weight.clone() for name, weight in regressor.named_parameters()}
    with pytest.raises(AgiqaError) as caught:
        load_vit(regressor, source)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert all(torch.equal(w, before[name]) for name, w in regressor.named_parameters())


@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification"])
def test_a_transformers_vit_has_the_same_hidden_states(
    kind: str,
    tiny: PaperRegressor,
    inputs: tuple[torch.Tensor, torch.Tensor],
    save_transformers: Callable[..., Path],
) -> None:
    folder = save_transformers(kind)
    load_vit(tiny, folder)
    theirs = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.inference_mode():
        found = tiny.backbone(inputs[0])
        expected = theirs(inputs[0], output_hidden_states=True).hidden_states
    assert len(found) == 4
    for layer, ours in zip(tiny.config.layers_run, found, strict=True):
        torch.testing.assert_close(ours, expected[layer + 1], rtol=1e-5, atol=1e-5)
    assert found[0].std() > 0.5


def test_a_transformers_vit_in_shards_or_as_bin(
    tiny: PaperRegressor, save_transformers: Callable[..., Path]
) -> None:
    folder = save_transformers()
    load_vit(tiny, folder)
    expected = {name: weight.clone() for name, weight in tiny.backbone.named_parameters()}
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(whole, folder / "pytorch_model.bin")
    _reload(tiny, folder, expected)
    names = sorted(whole)
    for part, some in enumerate((names[:9], names[9:])):
        save_file({name: whole[name] for name in some}, folder / f"model-{part}.safetensors")
    _reload(tiny, folder, expected)


def _reload(tiny: PaperRegressor, source: Any, expected: State) -> None:
    with torch.no_grad():
        for weight in tiny.backbone.parameters():
            weight.zero_()
    load_vit(tiny, source)
    for name, weight in tiny.backbone.named_parameters():
        assert torch.equal(weight, expected[name]), name


def test_timms_names_from_memory_and_files(
    tiny: PaperRegressor, timm_state: State, tmp_path: Path
) -> None:
    rest = {name: w.clone() for name, w in tiny.named_parameters() if "backbone" not in name}
    load_vit(tiny, timm_state)
    expected = {name: weight.clone() for name, weight in tiny.backbone.named_parameters()}
    assert torch.equal(
        expected["blocks.7.attention.qkv.weight"], timm_state["blocks.7.attn.qkv.weight"]
    )
    save_file(timm_state, tmp_path / "vit.safetensors")
    torch.save(timm_state, tmp_path / "vit.bin")
    torch.save(timm_state, tmp_path / "vit.pth")
    for name in ("vit.safetensors", "vit.bin", "vit.pth"):
        _reload(tiny, str(tmp_path / name), expected)
    assert all(torch.equal(tiny.get_parameter(name), weight) for name, weight in rest.items())


def test_other_sizes_are_one_line(
    tiny: PaperRegressor, timm_state: State, save_transformers: Callable[..., Path]
) -> None:
    longer = timm_state | {"pos_embed": torch.zeros(1, 197, 16)}
    _one_line(
        tiny, longer, "pos_embed (1, 197, 16) instead of (1, 65, 16)", "32 px in patches of 4"
    )
    coarse = timm_state | {"patch_embed.proj.weight": torch.zeros(16, 3, 8, 8)}
    _one_line(tiny, coarse, "patch_embed.proj.weight (16, 3, 8, 8) instead of (16, 3, 4, 4)")
    shallow = {name: t for name, t in timm_state.items() if "blocks.9" not in name}
    _one_line(tiny, shallow, "12 missing (blocks.9.norm1.weight", "10 blocks or more")
    _one_line(tiny, save_transformers(patch_size=8), "patch_embed.proj.weight (16, 3, 8, 8)")
    _one_line(tiny, save_transformers(qkv_bias=False), "missing (blocks.0.attn.qkv.bias")
    _one_line(tiny, save_transformers(hidden_size=32), "(32, 3, 4, 4) instead of (16, 3, 4, 4)")


def test_what_shapes_do_not_tell_is_one_line(
    tiny: PaperRegressor, save_transformers: Callable[..., Path]
) -> None:
    _one_line(
        tiny, save_transformers(num_attention_heads=4), "expected num_attention_heads 2", "found 4"
    )
    _one_line(tiny, save_transformers(hidden_act="relu"), "hidden_act 'gelu'", "found 'relu'")
    folder = save_transformers()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "deit"}))
    _one_line(tiny, folder, "expected model_type 'vit' in its config.json, found 'deit'")


def test_files_that_hold_no_weights_are_one_line(
    tiny: PaperRegressor, timm_state: State, save_transformers: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("cut.safetensors", "cut.pth"):
        path = tmp_path / name
        (save_file if path.suffix == ".safetensors" else torch.save)(timm_state, path)
        whole = path.read_bytes()
        for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            _one_line(tiny, path, name)
    torch.save({"model": timm_state}, tmp_path / "nested.pth")
    _one_line(tiny, tmp_path / "nested.pth", "expected tensors by name")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(torch.nn.Linear(2, 2)))
    _one_line(tiny, tmp_path / "code.pth", "could run code", "state dict alone")
    folder = save_transformers()
    (folder / "model.safetensors").unlink()
    _one_line(tiny, folder, "no weights; expected *.safetensors or pytorch_model*.bin")
    (folder / "config.json").unlink()
    _one_line(tiny, folder, "config.json")


def test_without_hub_or_timm_it_says_what_to_do(
    tiny: PaperRegressor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    _one_line(tiny, "someone/vit", "someone/vit", "local file or folder")
    _one_line(tiny, "no/such/folder", "no such file or folder")
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    for source in ("timm", "timm/vit_base_patch8_224.dino"):
        _one_line(tiny, source, "pip install 'agiqa[timm]'", "vit_base_patch8_224.")
