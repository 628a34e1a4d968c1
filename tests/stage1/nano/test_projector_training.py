"""The projector's training, on a tiny random model: honest sides, transformers' own loss, frozen
towers, the best validation kept."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nano_projector import (
    AFTER,
    BEFORE,
    LMM,
    Captions,
    Recipe,
    blank_states,
    collect,
    load_lmm,
    measure,
    save_projector,
    train,
)
from safetensors.torch import load_file

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.stage1.extractors.loading import preprocess
from agiqa.stage1.nano.assemble import load_strictly

RECIPE = Recipe(epochs=6, batch_size=4, warmup_steps=2, held_out=0.25, lr=0.02)
PROMPTS = [f"a {what}" for what in ("cat", "dog", "boat", "hill", "lamp", "road", "tree", "face")]


@pytest.fixture
def captioned(write_images: Callable[..., Path]) -> ImagesTable:
    """Three images for each of eight prompts."""
    table = folder.prepare(write_images(*[f"{row:02d}.png" for row in range(24)]), "captioned")
    prompts = np.repeat(PROMPTS, 3)
    return dataclasses.replace(table, frame=table.frame.assign(prompt=prompts, group=prompts))


@pytest.fixture
def lmm(tiny_lmm: Path) -> LMM:
    return load_lmm(Semantic(model=str(tiny_lmm)))


@pytest.fixture
def captions(lmm: LMM, captioned: ImagesTable) -> Captions:
    return collect(lmm, captioned, RECIPE)


def test_whole_prompts_are_held_out(lmm: LMM, captions: Captions) -> None:
    sides = {
        side: set(captions.groups[captions.sides == side]) for side in ("train", "val", "test")
    }
    assert [len(groups) for groups in sides.values()] == [4, 2, 2]
    assert set.union(*sides.values()) == set(PROMPTS)
    end = lmm.tokenizer.eos_token_id
    assert captions.tokens[0] == [*lmm.tokenizer(" a cat")["input_ids"], end]


def test_the_loss_is_transformers_own(lmm: LMM, captions: Captions, captioned: ImagesTable) -> None:
    image = lmm.tokenizer.convert_tokens_to_ids("<image>")
    before, after = (lmm.tokenizer(text)["input_ids"] for text in (BEFORE, AFTER))
    total = count = 0.0
    for row in np.flatnonzero(captions.sides == "test"):
        caption = captions.tokens[row]
        ids = torch.tensor([[*before, *[image] * 4, *after, *caption]])
        labels = ids.clone()
        labels[:, : -len(caption)] = -100
        pixels = preprocess(lmm.image_processor, decode(captioned.paths()[row]))[None]
        with torch.inference_mode():
            loss = lmm.model(ids, torch.from_numpy(pixels), labels=labels).loss
        total += float(loss) * len(caption)
        count += len(caption)
    measured = measure(lmm, captions, blank_states(lmm))["test"]
    assert measured["tokens"] == count
    assert measured["own_image"] == pytest.approx(total / count, abs=1e-3)  # states are float16
    assert measured["blank_image"] != pytest.approx(measured["own_image"], abs=1e-6)
    assert measured["other_image"] != pytest.approx(measured["own_image"], abs=1e-6)


def test_training_touches_the_projector_alone_and_keeps_the_best(
    lmm: LMM, captions: Captions
) -> None:
    before = {name: weight.clone() for name, weight in lmm.model.state_dict().items()}
    curve = train(lmm, captions, RECIPE)["curve"]
    after = lmm.model.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed
    assert all("multi_modal_projector" in name for name in changed)
    assert len(curve) == RECIPE.validations
    assert curve[-1]["train"] < curve[0]["train"]
    kept = measure(lmm, captions, blank_states(lmm))["val"]["own_image"]
    assert kept == pytest.approx(min(check["val"] for check in curve), abs=1e-6)


def test_training_again_gives_the_same_weights(
    lmm: LMM, captions: Captions, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        save_projector(lmm, tmp_path / f"{name}.safetensors", train(lmm, captions, RECIPE))
    first, second = (tmp_path / f"{name}.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(first.with_suffix(".json").read_text())["recipe"]["seed"] == 0
    weights = load_file(first)
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    floats = {name: weight.float() for name, weight in weights.items()}
    load_strictly(lmm.model.model.multi_modal_projector, floats, "projector")


def test_what_cannot_be_trained_is_explained(
    lmm: LMM, captions: Captions, captioned: ImagesTable
) -> None:
    with pytest.raises(AgiqaError, match="The recipe has no step"):
        train(lmm, captions, dataclasses.replace(RECIPE, epochs=0.1))
    with pytest.raises(AgiqaError, match=r"'captioned' has 8 prompts: too few to hold 0\.1 "):
        collect(lmm, captioned, Recipe())
    captioned.frame.loc[3, "prompt"] = " "
    with pytest.raises(AgiqaError, match="'captioned' has images without a prompt"):
        collect(lmm, captioned, RECIPE)
