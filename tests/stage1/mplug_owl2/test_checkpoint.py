"""Weights are read from every form of folder, strictly, and never stand in memory twice."""

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from accelerate import dispatch_model
from safetensors.torch import save_file

from agiqa.core.errors import AgiqaError
from kit.lazy import Lazily

if TYPE_CHECKING:
    from agiqa.stage1.mplug_owl2.network import MplugOwl2Model

loading = Lazily("agiqa.stage1.mplug_owl2.loading")
modeling = Lazily("agiqa.stage1.mplug_owl2.network")

Weights = dict[str, torch.Tensor]
BIN = "pytorch_model.bin"


def split(folder: Path, kind: str, count: int = 3) -> list[Path]:
    """Replace the one file of weights by shards and their index."""
    weights = torch.load(folder / BIN, weights_only=True)
    (folder / BIN).unlink()
    stem = "pytorch_model" if kind == "bin" else "model"
    index = {}
    for number in range(count):
        file = f"{stem}-{number + 1}-of-{count}.{kind}"
        part = {name: weights[name].clone() for name in sorted(weights)[number::count]}
        torch.save(part, folder / file) if kind == "bin" else save_file(part, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / f"{stem}.{kind}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    return sorted(folder.glob(f"{stem}-*"))


@pytest.fixture
def owl(build: Callable[..., Path], tmp_path: Path) -> Path:
    return build(tmp_path / "owl")


def states(model: "MplugOwl2Model") -> Weights:
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("form", ["bin shards", "safetensors shards", "safetensors", "old bin"])
def test_every_form_of_checkpoint_gives_the_same_model(form: str, owl: Path, tiny: Path) -> None:
    weights = torch.load(owl / BIN, weights_only=True)
    if form.endswith("shards"):
        split(owl, form.split()[0])
    elif form == "safetensors":
        save_file(weights, owl / "model.safetensors")
        (owl / BIN).unlink()
    else:
        torch.save(weights, owl / BIN, _use_new_zipfile_serialization=False)
    ours, wanted = (states(loading.load_model(path, "float32", "sdpa")) for path in (owl, tiny))
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)


def test_a_loaded_model_is_whole_frozen_and_of_its_dtype(tiny: Path) -> None:
    model = loading.load_model(tiny, "bfloat16", "sdpa")
    assert not model.training
    assert {(w.dtype, w.device.type, w.requires_grad) for w in model.parameters()} == {
        (torch.bfloat16, "cpu", False)
    }
    assert not any(buffer.is_meta for buffer in model.buffers())
    assert "lm_head" not in dict(model.named_children())
    assert not any(hasattr(module, "_hf_hook") for module in model.modules())


def test_an_unknown_attention_kernel_or_integers(tiny: Path) -> None:
    with pytest.raises(AgiqaError, match="attention=sdpa or eager; found 'flash_attention_2'"):
        loading.load_model(tiny, "float32", "flash_attention_2")
    with pytest.raises(AgiqaError, match="dtype=float32, bfloat16 or float16; found 'int8'"):
        loading.load_model(tiny, "int8", "sdpa")


def test_all_that_does_not_fit_is_listed_at_once(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    def change(weights: Weights) -> None:
        del weights["model.layers.1.mlp.up_proj.weight"]
        weights["model.layers.3.mlp.up_proj.weight"] = torch.zeros(1)
        weights["model.norm.weight"] = torch.zeros(7)

    with pytest.raises(AgiqaError) as error:
        loading.load_model(build(tmp_path / "odd", change), "float32", "sdpa")
    for part in (
        "1 missing (layers.1.mlp.up_proj.weight)",
        "1 unexpected (layers.3.mlp.up_proj.weight)",
        "1 misshapen (norm.weight (7,) instead of (64,))",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.98])
def test_a_truncated_shard(kind: str, kept: float, owl: Path) -> None:
    path = split(owl, kind)[1]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(AgiqaError, match=rf"-2-of-3\.{kind}: damaged.* copy it again") as error:
        loading.load_model(owl, "float32", "sdpa")
    assert "\n" not in str(error.value)


def test_shards_that_are_not_there(owl: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(AgiqaError, match=match) as error:
            loading.load_model(owl, "float32", "sdpa")
        assert "\n" not in str(error.value)

    paths, index = split(owl, "bin"), owl / f"{BIN}.index.json"
    whole = index.read_text()
    index.write_text("[]")
    refused("owl: no weights; expected")
    index.write_text(whole)
    paths[2].unlink()
    refused(r"do not fit its config\.json and MplugOwl2Model: 41 missing \(")
    for path in paths[:2]:
        path.unlink()
    refused(r"owl: no weights; expected model\.safetensors or pytorch_model\.bin")


def test_what_is_looked_at_is_what_is_loaded(owl: Path) -> None:
    """Or weights would be random, and files be unpacked that nobody has looked at."""
    weights = torch.load(owl / BIN, weights_only=True)
    few = {name: weight for name, weight in weights.items() if name != "model.norm.weight"}
    save_file(few, owl / "model.safetensors")  # transformers prefers it
    with pytest.raises(AgiqaError, match=r"MplugOwl2Model: 1 missing \(norm\.weight\)"):
        loading.load_model(owl, "float32", "sdpa")
    (owl / "model.safetensors").unlink()
    (owl / BIN).rename(owl / "pytorch_model-1.bin")
    with zipfile.ZipFile(owl / "other.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "other.bin")}
    (owl / f"{BIN}.index.json").write_text(json.dumps(index))
    with pytest.raises(AgiqaError, match=r"other\.bin: .*compressed records"):
        loading.load_model(owl, "float32", "sdpa")


class Harmful:
    """What a pickle may do when it is loaded without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of the file was run')",)


def test_code_in_a_checkpoint_is_not_run(owl: Path) -> None:
    torch.save({"model.norm.weight": Harmful()}, owl / BIN)
    with pytest.raises(AgiqaError, match="damaged, truncated or no weights"):
        loading.load_model(owl, "float32", "sdpa")
    (owl / BIN).write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(AgiqaError, match="damaged, truncated or no weights"):
        loading.load_model(owl, "float32", "sdpa")
    with zipfile.ZipFile(owl / BIN, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(AgiqaError, match=r"pytorch_model\.bin: .*compressed records"):
        loading.load_model(owl, "float32", "sdpa")
    torch.save(["no", "mapping"], owl / BIN)
    with pytest.raises(AgiqaError, match=r"pytorch_model\.bin: damaged, truncated or no weights"):
        loading.load_model(owl, "float32", "sdpa")


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"visual_config": {"visual_model": {"hidden_size": None}}}, "visual_model.hidden_size is"),
        ({"visual_config": {"visual_model": {"hidden_size": 8}}}, "another width"),
    ],
)
def test_a_configuration_that_is_not_mplug_owl2s(
    keys: dict[str, object], match: str, owl: Path, reconfigure: Callable[..., None]
) -> None:
    reconfigure(owl, **keys)
    with pytest.raises(AgiqaError, match=match) as error:
        loading.load_config(owl)
    assert "\n" not in str(error.value)
    (owl / "config.json").write_text("{")
    with pytest.raises(AgiqaError, match=r"config\.json: no configuration of mPLUG-Owl2"):
        loading.load_config(owl)


def test_blocks_are_spread_over_gpus_and_never_split(tiny: Path) -> None:
    model = loading.build_empty(loading.load_config(tiny), "sdpa")
    size = sum(weight.numel() for weight in model.parameters()) * 4
    assert loading.plan_devices(model, torch.float32, {0: 2 * size, 1: size}) == {"": 0}
    assert loading.plan_devices(model, torch.float32, None) == {"": torch.device("cpu")}
    planned = loading.plan_devices(model, torch.float32, {0: int(0.7 * size), 1: size})
    assert set(planned.values()) == {0, 1}
    assert not any(name.startswith("layers.") and name.count(".") > 1 for name in planned)
    with pytest.raises(AgiqaError, match=r"need 0\.0 GB of GPU memory in float32, more than is f"):
        loading.plan_devices(model, torch.float32, {0: size // 3, 1: size // 3})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_accelerates_hooks_change_nothing(tiny: Path, expected: Weights, dtype: str) -> None:
    """As on several GPUs, where they move each block's input; also in a float32 pass."""
    ids, pixels = expected["prompt_0_input_ids"].expand(3, -1), expected["pixel_values"]
    plain, hooked = (loading.load_model(tiny, dtype, "sdpa") for _ in range(2))
    parts = ["vision_model", "visual_abstractor", "embed_tokens", "norm", "rotary_emb"]
    devices = dict.fromkeys([*parts, *(f"layers.{n}" for n in range(3))], "cpu")
    dispatch_model(hooked, devices, force_hooks=True)
    with torch.inference_mode():
        assert torch.equal(plain(ids, pixels)[0], hooked(ids, pixels)[0])


SIZES = {  # 67 million parameters: 134 MB in float16
    "vocab_size": 16000,
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 4,
}
LOAD = """
import re, sys, threading, time
from pathlib import Path
from agiqa.stage1.mplug_owl2.loading import load_model
import accelerate.hooks, transformers.models.llama.modeling_llama  # so that only loading counts

def memory():  # but for pages of the files themselves, which the system drops when it needs them
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def watch():
    while True:
        peaks.append(memory())
        time.sleep(0.001)

peaks = [memory()]
threading.Thread(target=watch, daemon=True).start()
model = load_model(Path(sys.argv[1]), sys.argv[2], "sdpa")
weights = sum(w.numel() * w.element_size() for w in model.parameters())
print(weights, max(peaks) - peaks[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("kind", "dtype"), [("bin", "float16"), ("safetensors", "float32")])
def test_weights_never_stand_in_memory_twice(
    kind: str, dtype: str, owl: Path, reconfigure: Callable[..., None], python: list[str]
) -> None:
    reconfigure(owl, **SIZES)
    empty = loading.build_empty(loading.load_config(owl), "sdpa")
    weights = {
        f"model.{name}": torch.ones(weight.shape, dtype=torch.float16)
        for name, weight in empty.named_parameters()
    }
    torch.save(weights, owl / BIN)
    shard = max(path.stat().st_size for path in split(owl, kind, count=8))
    command = [*python, "-c", LOAD, str(owl), dtype]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    copy, used = map(int, printed.split())
    assert copy > 100e6
    assert used < copy + shard + 40e6  # torch's own working memory
