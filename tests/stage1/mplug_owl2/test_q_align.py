"""`q-align` is its authors' `MPLUGOwl2LlamaForCausalLM.score`, on the reference's tiny weights."""

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models
from transformers import CLIPImageProcessorPil

from agiqa.runs.lmm_scorer import LmmScorer, read_scorer
from agiqa.stage1.mplug_owl2.processing import load_tokenizer, tokenize
from kit.lazy import Lazily

loading = Lazily("agiqa.stage1.mplug_owl2.loading")
modeling = Lazily("agiqa.stage1.mplug_owl2.modeling")

LEVELS = ("excellent", "good", "fair", "poor", "bad")
TEXT = (
    "USER: How would you rate the quality of this image?\n<|image|>\n"
    "ASSISTANT: The quality of the image is"
)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)


@pytest.fixture
def taught(build: Callable[..., Path], vocabulary: dict[str, int], tmp_path: Path) -> Path:
    """The tiny checkpoint, whose tokenizer knows each level as one piece, as LLaMA's does."""
    pieces, merges = dict(vocabulary), []
    for level in LEVELS:
        for whole in accumulate(f"▁{level}"):
            if whole != "▁":
                pieces.setdefault(whole, len(pieces))
                merges.append((whole[:-1], whole[-1]))
    folder = build(tmp_path / "owl")
    options = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    made = Tokenizer(models.BPE(pieces, list(dict.fromkeys(merges)), **options))
    made.save(str(folder / "tokenizer.json"))
    return folder


def expand2square(image: Image.Image) -> Image.Image:
    """As the authors pad: the rest is CLIP's mean colour, the image in the middle."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(x * 255) for x in CLIP_MEAN))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def test_the_mean_level_behind_the_authors_text(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    images = [Image.effect_noise(size, 90).convert("RGB") for size in ((30, 50), (50, 30))]
    scorer = read_scorer("q-align")
    assert (scorer.settings.model, scorer.settings.dtype) == ("q-future/one-align", "float16")
    settings = replace(scorer.settings, model=str(taught), dtype="float32")
    ours = LmmScorer(replace(scorer, settings=settings))(images)

    tokenizer = load_tokenizer(taught, 10**6)
    ids = [tokenizer.encode(level, add_special_tokens=False).ids[0] for level in LEVELS]
    assert len(set(ids)) == len(LEVELS)
    text = tokenize(tokenizer, 1, TEXT)
    row = [*text.before, modeling.IMAGE_TOKEN, *text.after]
    side = {"height": 28, "width": 28}
    pixels = CLIPImageProcessorPil(size=side, crop_size=side)(
        [expand2square(image) for image in images], return_tensors="pt"
    )["pixel_values"]
    network = loading.load_model(taught, "float32", "eager", modeling.MplugOwl2WithHead)
    with torch.inference_mode():
        states = network(torch.tensor([row, row]), pixels).last_hidden_state
        levels = network.logits(states[:, -1])[:, ids].softmax(-1)
    expected = (levels @ torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])).tolist()
    assert [score.score for score in ours] == pytest.approx(expected, abs=1e-4)
    assert expected[0] != expected[1]
