"""Models are found, told apart by their bytes, and loaded whole or not at all.

What of the environment changes numbers stands in the fingerprint, or is refused.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual
from agiqa.stage1.extractors import ImageTextExtractor, VisionExtractor, semantic_extractor
from agiqa.stage1.extractors.identity import LIBRARIES, ModelFolder, libraries
from agiqa.stage1.extractors.loading import find_model, load_image_processor, load_model, preprocess
from kit.changed_weights import change_weights
from kit.hub_server import serve
from kit.publishing import use_hub

TOWER = "vision_tower."


@pytest.fixture
def model(tiny_lmm: Path, tmp_path: Path) -> ModelFolder:
    """A copy of the tiny image-text model that a test may change."""
    return ModelFolder("copy", Path(shutil.copytree(tiny_lmm, tmp_path / "copy")))


def test_a_folder_is_found_by_its_path(tiny_lmm: Path) -> None:
    assert find_model(str(tiny_lmm)) == ModelFolder(tiny_lmm.name, tiny_lmm)


def test_identity_is_of_the_bytes_not_of_the_place(model: ModelFolder, tiny_lmm: Path) -> None:
    original = ModelFolder("original", tiny_lmm)
    assert model.identity() == original.identity()
    (model.path / "README.md").write_text("no input of the model")
    assert model.identity() == original.identity()
    change_weights(model.path, lambda name: 1.5 if "norm" in name else 1.0)
    assert model.identity() != original.identity()


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_identity_covers_all_that_is_read(model: ModelFolder, file: str) -> None:
    before = model.identity()
    (model.path / file).write_text((model.path / file).read_text() + "\n")
    assert model.identity() != before


def test_a_folder_without_such_a_part_has_its_whole_identity(model: ModelFolder) -> None:
    assert model.part_identity("no such part") == model.identity()


def test_weights_in_bfloat16_have_a_part_identity_too(
    build_lmm: Callable[..., Path], tmp_path: Path, model: ModelFolder
) -> None:
    """NumPy has no bfloat16, and most published models do."""
    half = ModelFolder("half", build_lmm(tmp_path / "half", dtype="bfloat16"))
    assert half.part_identity(TOWER) != model.part_identity(TOWER)


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As HF_HUB_OFFLINE=1 sets it when huggingface_hub is first imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        AgiqaError, match=r"'some/model': .* Put the model into a local folder"
    ) as e:
        find_model("some/model")
    assert "\n" not in str(e.value)


def test_a_model_of_another_kind(build_vision: Callable[..., Path], tmp_path: Path) -> None:
    folder = ModelFolder("vision", build_vision(tmp_path / "vision"))
    with pytest.raises(AgiqaError, match="'vision' cannot be loaded as AutoModelForImageText") as e:
        load_model(transformers.AutoModelForImageTextToText, folder, "float32", "sdpa")
    assert "\n" not in str(e.value)


def test_damaged_weights(model: ModelFolder) -> None:
    path = model.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AgiqaError, match=r"model\.safetensors: damaged weights"):
        load_model(transformers.AutoModelForImageTextToText, model, "float32", "sdpa")
    with pytest.raises(AgiqaError, match=r"model\.safetensors: damaged weights"):
        model.part_identity(TOWER)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_model_is_frozen_in_eval_mode_and_of_the_dtype(tiny_lmm: Path, dtype: str) -> None:
    loaded = load_model(
        transformers.AutoModelForImageTextToText, find_model(str(tiny_lmm)), dtype, "eager"
    )
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert {str(weight.dtype) for weight in loaded.parameters()} == {f"torch.{dtype}"}
    assert loaded.config._attn_implementation == "eager"


def test_the_image_processor_is_pillows_and_takes_a_size(
    tiny_lmm: Path, photo: Image.Image
) -> None:
    folder = find_model(str(tiny_lmm))
    processor = load_image_processor(folder)
    assert type(processor).__name__ == "CLIPImageProcessorPil"
    pixels = preprocess(processor, photo)
    assert (pixels.shape, pixels.dtype) == ((3, 32, 32), np.float32)
    resized = np.asarray(photo.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    expected = (resized - processor.image_mean) / processor.image_std
    np.testing.assert_allclose(pixels, expected.transpose(2, 0, 1), atol=1e-5)
    assert preprocess(load_image_processor(folder, 48), photo).shape == (3, 48, 48)


def test_no_image_processor(model: ModelFolder) -> None:
    (model.path / "preprocessor_config.json").unlink()
    with pytest.raises(AgiqaError, match="'copy' has no usable image processor"):
        load_image_processor(model)


def test_size_and_licence_are_said_before_a_fetch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agiqa")
    with serve({"config.json": b"{}", "notes.md": b"more"}) as hub:
        hub.sizes["config.json"] = 16_400_000_000
        use_hub(monkeypatch, tmp_path, hub.address)
        find_model("tester/run")
    assert "is fetched from the hub (16.40 GB, licence: not said there)" in caplog.text


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes it look as if a distribution were installed."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def install(name: str, package: str) -> None:
        folder = tmp_path / "site" / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
        (folder / "top_level.txt").write_text(package + "\n")

    return install


@pytest.fixture
def adapted(tiny_lmm: Path, tmp_path: Path) -> Path:
    """A full model with a LoRA adapter beside it."""
    folder = Path(shutil.copytree(tiny_lmm, tmp_path / "adapted"))
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 1}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_an_adapter_beside_a_full_model_is_refused_with_and_without_peft(
    adapted: Path, installed: Callable
) -> None:
    for peft in (False, True):
        if peft:
            installed("peft", "peft")
        for make in (
            lambda: semantic_extractor(Semantic(model=str(adapted))),
            lambda: ImageTextExtractor(Semantic(model=str(adapted))),
            lambda: VisionExtractor(Visual(model=str(adapted))),
        ):
            with pytest.raises(AgiqaError, match=r"adapter_config\.json.* beside the full") as e:
                make()
            assert "merge_and_unload" in str(e.value)
            assert "\n" not in str(e.value)


def test_an_adapter_alone_is_one_line_that_says_what_to_do(adapted: Path) -> None:
    (adapted / "config.json").unlink()
    with pytest.raises(AgiqaError, match=r"found an adapter alone .* merge it into 'org/base'"):
        find_model(str(adapted))
    (adapted / "adapter_config.json").write_text("[]")
    with pytest.raises(AgiqaError, match=r"found an adapter alone .* merge it into 'its base mode"):
        find_model(str(adapted))


def test_an_adapter_among_a_hub_models_files(
    adapted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(adapted))
    with pytest.raises(AgiqaError, match="beside the full model"):
        find_model("org/adapted")


def test_packages_that_a_model_takes_up_are_in_its_fingerprint_and_no_others(
    installed: Callable, tiny_lmm: Path
) -> None:
    linear = transformers.Qwen3_5Config()  # gated delta rule: fla and causal-conv1d
    before = ImageTextExtractor(Semantic(model=str(tiny_lmm))).vectors[0].fingerprint
    assert set(libraries(linear)) == set(LIBRARIES)
    for name, package in (
        ("flash-linear-attention", "fla"),
        ("causal-conv1d", "causal_conv1d"),
        ("mamba-ssm", "mamba_ssm"),
        ("kernels", "kernels"),
        ("bitsandbytes", "bitsandbytes"),
        ("flash-attn", "flash_attn"),
        ("sentencepiece", "sentencepiece"),
    ):
        installed(name, package)
    versions = libraries(linear)
    assert {name: versions[name] for name in set(versions) - set(LIBRARIES)} == {
        "flash-linear-attention": "9.9",
        "causal-conv1d": "9.9",
    }
    after = ImageTextExtractor(Semantic(model=str(tiny_lmm))).vectors[0].fingerprint
    assert after == before
    assert libraries(linear, "flash_attention_2")["flash-attn"] == "9.9"
    assert libraries(linear, "flash_attention_2")["kernels"] == "9.9"  # in its place
    assert libraries(None, quantised=True)["bitsandbytes"] == "9.9"


def test_a_quantised_checkpoint_names_the_quantisers(installed: Callable) -> None:
    installed("compressed-tensors", "compressed_tensors")
    config = transformers.LlavaConfig()
    assert "compressed-tensors" not in libraries(config)
    config.quantization_config = {"quant_method": "compressed-tensors"}
    assert libraries(config)["compressed-tensors"] == "9.9"


def test_tokenizers_of_other_makers_are_named(installed: Callable) -> None:
    installed("sentencepiece", "sentencepiece")

    class Slow:
        is_fast = False

    assert libraries(None, tokenizer=Slow())["sentencepiece"] == "9.9"


def test_code_that_comes_with_a_model_is_part_of_it(
    installed: Callable, tiny_lmm: Path, tmp_path: Path
) -> None:
    installed("flash-attn", "flash_attn")
    folder = Path(shutil.copytree(tiny_lmm, tmp_path / "own"))
    code = folder / "modeling_own.py"
    code.write_text(
        "import os\ntry:\n    from flash_attn.layers import x\nexcept ImportError: x=1\n"
    )
    assert libraries(None, code=folder)["flash-attn"] == "9.9"
    assert set(libraries(None, code=folder)) == {*LIBRARIES, "flash-attn"}
    model = find_model(str(folder))
    before = model.identity(code=True)
    assert model.identity() == find_model(str(tiny_lmm)).identity()
    code.write_text("x = 2\n")
    assert model.identity(code=True) != before


@pytest.mark.parametrize("attention", ["kernels-community/flash-attn2", "org/kernel@main:f"])
def test_an_attention_kernel_from_the_hub_is_not_run(attention: str, tiny_lmm: Path) -> None:
    for make in (
        lambda: ImageTextExtractor(Semantic(model=str(tiny_lmm), attention=attention)),
        lambda: VisionExtractor(Visual(model=str(tiny_lmm), layers=(1,), attention=attention)),
    ):
        with pytest.raises(AgiqaError, match="code from the hub, which is not run"):
            make()


def test_an_image_processor_of_torchvision_is_refused_by_every_extractor(
    tiny_lmm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers falls back to it where a processor has no Pillow version."""
    monkeypatch.setattr(
        transformers.CLIPImageProcessorPil, "backend", property(lambda _: "torchvision")
    )
    for make in (
        lambda: ImageTextExtractor(Semantic(model=str(tiny_lmm))),
        lambda: VisionExtractor(Visual(model=str(tiny_lmm), layers=(1,), image_size=32)),
    ):
        with pytest.raises(AgiqaError, match="CLIPImageProcessorPil has no Pillow version"):
            make()
