"""What `agiqa extractors` says is what configurations and processors make of it."""

import math
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from safetensors import safe_open

from agiqa.stage1.extractors.known_models import KNOWN_MODELS, Known
from agiqa.stage1.nano.assemble import VISUAL_TOKENS, ensure_nano

SIDE = 1024


def _known(part: str) -> list[Known]:
    known = [model for model in KNOWN_MODELS if part in model.model]
    assert known, part
    return known


def test_the_list_is_whole() -> None:
    names = [known.model for known in KNOWN_MODELS]
    assert names[:2] == ["nano", "MAGAer13/mplug-owl2-llama2-7b"]
    assert len(set(names)) == len(names)
    kinds = {known.kind for known in KNOWN_MODELS}
    assert kinds == {"image_text_to_text", "mplug_owl2", "dual_encoder"}
    for known in KNOWN_MODELS:
        assert known.licence, known.model
        assert min(known.billions, known.width, known.tokens) > 0, known.model


@pytest.mark.nano
def test_nano_is_as_listed() -> None:
    (nano,) = _known("nano")
    folder = ensure_nano()
    with safe_open(Path(folder) / "model.safetensors", "pt") as file:
        names = list(file.keys())
        parameters = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    config = transformers.AutoConfig.from_pretrained(folder)
    assert nano.billions == round(parameters / 1e9, 2)
    assert nano.width == config.get_text_config().hidden_size
    assert nano.tokens == VISUAL_TOKENS


def test_mplug_owl2_is_as_listed() -> None:
    from agiqa.stage1.mplug_owl2.network import MplugOwl2Config, MplugOwl2Model

    (known,) = _known("mplug")
    config = MplugOwl2Config()
    with torch.device("meta"):
        model = MplugOwl2Model(config)
    head = config.vocab_size * config.hidden_size
    parameters = sum(weight.numel() for weight in model.parameters()) + head
    assert known.billions == round(parameters / 1e9, 2)
    assert known.width == config.hidden_size


def test_qwens_tokens() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    for part, factor, least, most in (
        ("Qwen2.5-VL", 28, 3136, 12845056),
        ("Qwen3-VL", 32, 65536, 16777216),
    ):
        height, width = smart_resize(SIDE, SIDE, factor, least, most)
        assert {model.tokens for model in _known(part)} == {height * width // factor**2}


def test_internvls_tokens() -> None:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    columns, rows = get_optimal_tiled_canvas((SIDE, SIDE), (448, 448), 1, 12)
    (known,) = _known("InternVL3")
    assert known.tokens == (columns * rows + 1) * 256  # and the whole image, small


@pytest.mark.parametrize(
    ("part", "size", "tile", "tokens"),
    [("256M", 2048, 512, 64), ("500M", 2048, 512, 64), ("2.2B", 1536, 384, 81)],
)
def test_smolvlms_tokens(part: str, size: int, tile: int, tokens: int) -> None:
    processor = transformers.SmolVLMImageProcessorPil(
        size={"longest_edge": size}, max_image_size={"longest_edge": tile}
    )
    image = Image.new("RGB", (SIDE, SIDE))
    tiles = processor(images=[image], return_tensors="np")["pixel_values"].shape[1]
    (known,) = _known(part)
    assert known.tokens == tiles * tokens


def test_llavas_tokens() -> None:
    """LLaVA: a fixed square. OneVision: 3 x 3 tiles and a mark for each row, and the whole."""
    (known,) = _known("llava-1.5")
    assert known.tokens == (336 // 14) ** 2
    patches = 384 // 14
    (known,) = _known("onevision")
    assert known.tokens == (3 * patches) ** 2 + 3 * patches + patches**2


@pytest.mark.parametrize(
    ("part", "sides"),
    [
        ("paligemma2-3b-mix-448", 448 // 14),
        ("gemma-3-4b", 896 // 14 // 4),
        ("gemma-3-12b", 896 // 14 // 4),
        ("clip-vit-large-patch14", 224 // 14),
        ("siglip2-base-patch16-224", 224 // 16),
        ("siglip2-so400m-patch14-384", 384 // 14),
    ],
)
def test_tokens_of_fixed_squares(part: str, sides: int) -> None:
    (known,) = _known(part)
    assert (known.tokens, known.dynamic) == (sides**2, False)
