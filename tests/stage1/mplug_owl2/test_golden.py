"""The network, the pooling and the preprocessing against the reference's own numbers."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from agiqa.stage1.mplug_owl2 import register
from agiqa.stage1.mplug_owl2.processing import TokenizedText, normalise, square
from kit.lazy import Lazily

if TYPE_CHECKING:
    from agiqa.stage1.mplug_owl2.network import MplugOwl2Model

loading = Lazily("agiqa.stage1.mplug_owl2.loading")
modeling = Lazily("agiqa.stage1.mplug_owl2.network")
owl_vectors = Lazily("agiqa.stage1.mplug_owl2.extractor")

Expected = dict[str, torch.Tensor]


@pytest.fixture(params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest, tiny: Path) -> "MplugOwl2Model":
    return loading.load_model(tiny, "float32", request.param)


def _text(ids: torch.Tensor) -> TokenizedText:
    listed = ids.tolist()
    index = listed.index(modeling.IMAGE_TOKEN)
    return TokenizedText(tuple(listed[:index]), tuple(listed[index + 1 :]))


@torch.inference_mode()
def test_every_stage_is_the_references(model: "MplugOwl2Model", expected: Expected) -> None:
    pixels = expected["pixel_values"]
    tower = model.vision_model(pixels)
    torch.testing.assert_close(tower, expected["vision_last_hidden_state"], atol=1e-4, rtol=0)
    visual = model.encode_images(pixels)
    torch.testing.assert_close(visual, expected["visual_abstractor_output"], atol=1e-4, rtol=0)
    for prompt in ("prompt_0", "prompt_1"):
        ids = expected[f"{prompt}_input_ids"].expand(3, -1)
        states = model(ids, pixels).last_hidden_state
        wanted = expected[f"{prompt}_last_hidden_state"]
        torch.testing.assert_close(states, wanted, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_vectors_are_the_references_means(model: "MplugOwl2Model", expected: Expected) -> None:
    """By the way that extraction takes: the text before the image is run once."""
    texts = [_text(expected[f"prompt_{number}_input_ids"]) for number in (0, 1)]
    vectors = owl_vectors.SemanticVectors(model, texts, batch_size=3)
    visual = model.encode_images(expected["pixel_values"])
    for number in (0, 1):
        wanted = expected[f"prompt_{number}_mean_pooled"]
        torch.testing.assert_close(vectors.pool(visual, number), wanted, atol=1e-4, rtol=0)


def test_transformers_auto_classes_read_it_without_remote_code(
    tiny: Path, expected: Expected
) -> None:
    register()
    register()  # twice does no harm
    assert transformers.AutoConfig.from_pretrained(tiny).visual_tokens == 6
    transformers.utils.logging.disable_progress_bar()
    model, report = transformers.AutoModel.from_pretrained(tiny, output_loading_info=True)
    assert isinstance(model, modeling.MplugOwl2Model)
    assert not any(report.values())
    ids = expected["prompt_0_input_ids"].expand(3, -1)
    with torch.inference_mode():
        states = model.eval()(ids, expected["pixel_values"]).last_hidden_state
    wanted = expected["prompt_0_last_hidden_state"]
    torch.testing.assert_close(states, wanted, atol=1e-4, rtol=0)


def test_what_transformers_saves_is_read_again(
    tiny: Path, tmp_path: Path, expected: Expected
) -> None:
    """Its names lack the leading `model.`, and its file is safetensors."""
    model = loading.load_model(tiny, "float32", "sdpa")
    model.save_pretrained(tmp_path / "saved")
    again = loading.load_model(tmp_path / "saved", "float32", "sdpa")
    ids = expected["prompt_0_input_ids"].expand(3, -1)
    with torch.inference_mode():
        before, after = (m(ids, expected["pixel_values"])[0] for m in (model, again))
    assert torch.equal(before, after)


def test_the_plain_forward_wants_one_image_a_row(tiny: Path, expected: Expected) -> None:
    model = loading.load_model(tiny, "float32", "sdpa")
    pixels = expected["pixel_values"][:2]
    for rows in ([[1, 5], [1, 5]], [[1, modeling.IMAGE_TOKEN, 5], [1, 5, modeling.IMAGE_TOKEN]]):
        with pytest.raises(ValueError, match="one image a row, at the same place"):
            model(torch.tensor(rows), pixels)


def test_images_are_prepared_as_the_reference_does(golden: Path) -> None:
    folder = golden / "preprocessing"
    for name, wanted in load_file(folder / "lmm_448.safetensors").items():
        with Image.open(folder / name.partition("__")[0]) as image:
            pixels = square(image.convert("RGB"), 448)
        assert (pixels.shape, pixels.dtype) == ((3, 448, 448), np.uint8)
        ours = normalise(torch.from_numpy(pixels)[None])[0, :, ::7, ::7]
        torch.testing.assert_close(ours, wanted, atol=1e-3, rtol=0)


def test_padding_is_centred_and_of_clips_mean_colour() -> None:
    tall = square(Image.new("RGB", (2, 8), (255, 0, 0)), 8)
    np.testing.assert_array_equal(tall[:, 4, 0], (122, 116, 104))
    np.testing.assert_array_equal(tall[:, 4, 7], (122, 116, 104))
    np.testing.assert_array_equal(tall[:, 4, 3], (255, 0, 0))
    assert np.abs(normalise(torch.tensor((122, 116, 104)).view(1, 3, 1, 1))).max() < 0.02
