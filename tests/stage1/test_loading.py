"""Models are found, told apart by their bytes, and loaded whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.stage1.extractors.loading import (
    ModelFolder,
    find_model,
    load_image_processor,
    load_model,
    preprocess,
)
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
