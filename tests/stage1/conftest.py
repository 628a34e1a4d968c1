"""A tiny image-text model that transformers itself builds, saves and loads, and images for it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agiqa.datasets import folder
from agiqa.datasets.table import ImagesTable
from agiqa.params import Semantic, Visual

WORDS = "USER : ASSISTANT Evaluate the input image to determine if its quality is a <unk> <image>"


@pytest.fixture(scope="session")
def tiny_lmm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Aya Vision model of the same build as nano: CLIP tower, pixel shuffle, LLaMA; random."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = tmp_path_factory.mktemp("tiny") / "lmm"
    words = {word: index for index, word in enumerate(WORDS.split())}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", additional_special_tokens=["<image>"]
    )
    torch.manual_seed(0)
    config = transformers.AyaVisionConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=len(words),
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        ),
        image_token_index=words["<image>"],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        downsample_factor=2,
    )
    transformers.AyaVisionForConditionalGeneration(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    transformers.CLIPImageProcessorPil(
        size={"height": 32, "width": 32}, do_center_crop=False
    ).save_pretrained(path)
    return path


@pytest.fixture
def semantic(tiny_lmm: Path) -> Semantic:
    return Semantic(name="tiny", model=str(tiny_lmm), batch_size=4)


@pytest.fixture
def visual(tiny_lmm: Path) -> Visual:
    return Visual(
        name="tiny-vision", model=str(tiny_lmm), layers=(1, 3), image_size=48, batch_size=4
    )


@pytest.fixture
def table(write_images: Callable[..., Path]) -> ImagesTable:
    """Ten real little images."""
    return folder.prepare(write_images(*[f"{row}.png" for row in range(10)]), "ten")
