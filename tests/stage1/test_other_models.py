"""The extractors take more than nano's own build: LLaVA, tokenizers with BOS, other backbones."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.stage1.extractors import ImageTextExtractor, VisionExtractor
from agiqa.stage1.extractors.contract import batch


@pytest.mark.parametrize(
    ("kind", "visual_tokens", "bos"),
    [("AyaVision", 4, False), ("AyaVision", 4, True), ("Llava", 16, False), ("Llava", 16, True)],
)
def test_semantic_vectors_equal_the_plain_forward(
    kind: str,
    visual_tokens: int,
    bos: bool,
    build_lmm: Callable[..., Path],
    tmp_path: Path,
    table: ImagesTable,
) -> None:
    folder = build_lmm(tmp_path / "model", kind, bos=bos)
    extractor = ImageTextExtractor(Semantic(model=str(folder), batch_size=2))
    samples = [extractor.preprocess(decode(path)) for path in table.paths()[:2]]
    pixels = batch(samples)["pixel_values"]
    ours = extractor.extract(samples, [0, 1])
    assert [vector.name for vector in extractor.vectors] == ["semantic_content", "coherence"]
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for vectors, name in zip(ours, extractor.prompt_set.prompts, strict=True):
        before, after = extractor.prompt_set.text(name)
        text = before + "<image>" * visual_tokens + after
        ids = tokenizer([text] * 2, return_tensors="pt")["input_ids"]
        assert (ids[0, 0] == tokenizer.bos_token_id) == bos
        with torch.inference_mode():
            states = model(
                input_ids=ids, pixel_values=torch.from_numpy(pixels), output_hidden_states=True
            ).hidden_states[-1]
        np.testing.assert_allclose(vectors, states.mean(1).numpy(), atol=1e-5)
        assert np.abs(vectors[0] - vectors[1]).max() > 1e-3  # the image does matter


@pytest.mark.parametrize(
    ("config", "blocks", "others"),
    [
        ("CLIPVisionConfig", "encoder.layers", 1),
        ("CLIPConfig", "vision_model.encoder.layers", 1),
        ("AyaVision", "vision_tower.encoder.layers", 1),  # within an image-text model
        ("Dinov2Config", "encoder.layer", 1),
        ("Dinov2WithRegistersConfig", "encoder.layer", 5),  # 4 registers are no patches
        ("SiglipVisionConfig", "encoder.layers", 0),
    ],
)
@pytest.mark.parametrize("size", [32, 48])
def test_visual_vectors_are_what_the_blocks_put_out(
    config: str,
    blocks: str,
    others: int,
    size: int,
    build_vision: Callable[..., Path],
    tiny_lmm: Path,
    tmp_path: Path,
    table: ImagesTable,
) -> None:
    folder = tiny_lmm if config == "AyaVision" else build_vision(tmp_path / "model", config)
    pool = ("cls", "mean", "std") if others else ("mean", "std")
    settings = Visual(
        model=str(folder), layers=(1, 3), pool=pool, image_size=size, closeup=0, batch_size=2
    )
    extractor = VisionExtractor(settings)
    samples = [extractor.preprocess(decode(path)) for path in table.paths()[:2]]
    ours = np.stack(extractor.extract(samples, [0, 1]), axis=1)
    pixels = batch(samples)["layer"]

    model = transformers.AutoModel.from_pretrained(folder).eval()
    outputs: list[np.ndarray] = []
    for number in (0, 2):
        model.get_submodule(f"{blocks}.{number}").register_forward_hook(
            lambda _, __, out: outputs.append((out[0] if isinstance(out, tuple) else out).numpy())
        )
    tower = getattr(model, blocks.partition(".")[0]) if "vision_" in blocks else model
    interpolate = {} if config.startswith("Dino") else {"interpolate_pos_encoding": size != 32}
    with torch.inference_mode():
        tower(pixel_values=torch.from_numpy(pixels), **interpolate)
    assert len(outputs) == 2
    for index, states in enumerate(outputs):
        patches = states[:, others:]
        assert patches.shape[1] == (size // 8) ** 2
        pooled = [states[:, 0]] * bool(others) + [patches.mean(1), patches.std(1, ddof=1)]
        np.testing.assert_allclose(ours[:, index], np.concatenate(pooled, 1), atol=1e-5)


def test_a_backbone_without_class_token(
    build_vision: Callable[..., Path], tmp_path: Path, table: ImagesTable
) -> None:
    folder = build_vision(tmp_path / "siglip", "SiglipVisionConfig")
    settings = Visual(model=str(folder), layers=(1,), image_size=32, closeup=0, batch_size=1)
    extractor = VisionExtractor(settings)
    sample = extractor.preprocess(decode(table.paths()[0]))
    with pytest.raises(
        AgiqaError, match=r"'siglip' has no class token: leave cls out of visual\.p"
    ):
        extractor.extract([sample], [0])


def test_the_close_up_is_the_centre_of_a_larger_image(
    build_vision: Callable[..., Path], tmp_path: Path, table: ImagesTable
) -> None:
    folder = build_vision(tmp_path / "model", "CLIPVisionConfig")
    settings = Visual(model=str(folder), layers=(1, 3), image_size=48, closeup=72, batch_size=2)
    extractor = VisionExtractor(settings)
    assert [v.name for v in extractor.vectors] == ["layer1", "layer3", "closeup1", "closeup3"]
    images = [decode(path) for path in table.paths()[:2]]
    ours = extractor.extract([extractor.preprocess(image) for image in images], [0, 3])
    whole = VisionExtractor(dataclasses.replace(settings, closeup=0))
    alone = whole.extract([whole.preprocess(image) for image in images], [0])
    np.testing.assert_array_equal(ours[0], alone[0])
    assert extractor.vectors[0].fingerprint == whole.vectors[0].fingerprint

    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    large = [image.resize((72, 72), Image.Resampling.BICUBIC) for image in images]
    centres = [image.crop((20, 20, 52, 52)) for image in large]
    with torch.inference_mode():
        pixels = processor(centres, return_tensors="pt")["pixel_values"]
        states = model(pixel_values=pixels, output_hidden_states=True).hidden_states[3]
    patches = states[:, 1:]
    expected = torch.cat([states[:, 0], patches.mean(1), patches.std(1)], dim=1)
    np.testing.assert_allclose(ours[1], expected.numpy(), atol=1e-5)
