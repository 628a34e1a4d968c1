"""What is remembered of models follows from all that it depends on, or is found out again."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.params import Semantic
from agiqa.stage1.extractors import ImageTextExtractor, model_memory
from agiqa.stage1.extractors.lmm.forward import SharedForward
from agiqa.stage1.extractors.loading import ModelFolder
from agiqa.stage1.extractors.model_memory import LEAST, known_sha256


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to be hashed."""
    read, real = list[Path](), model_memory.file_sha256
    monkeypatch.setattr(model_memory, "file_sha256", lambda path: read.append(path) or real(path))
    return read


def settle(path: Path) -> None:
    """Let a file be of an hour ago, but for the time of its last change of anything."""
    os.utime(path, (1_700_000_000, 1_700_000_000))


def test_a_file_is_hashed_once_until_anything_of_it_changes(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"a" * LEAST)
    settle(file)
    first = known_sha256(file)
    assert (known_sha256(file), len(hashed)) == (first, 2)  # changed within two seconds: not kept
    monkeypatch.setattr(model_memory, "STEP", -(10**12))  # from now on all is settled
    assert [known_sha256(file) for _ in range(3)] == [first] * 3
    assert len(hashed) == 3
    file.write_bytes(b"b" * LEAST)  # the same size, and soon the same time of content
    settle(file)
    assert known_sha256(file) != first
    model_memory.memory_file().write_text("{ damaged")
    assert known_sha256(file) != first
    assert len(hashed) == 5


def test_a_part_is_digested_once_until_its_file_changes(
    tiny_lmm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_memory, "STEP", -(10**12))
    folder = ModelFolder("tiny", tiny_lmm)
    first = folder.part_identity("vision_tower.")
    monkeypatch.setattr("agiqa.stage1.extractors.loading._part_sha256", lambda *_: "0" * 64)
    assert folder.part_identity("vision_tower.") == first
    assert folder.part_identity("language_model.") == {"sha256": "0" * 64}


def test_what_prompts_share_is_proven_once_and_the_vectors_stay(
    semantic: Semantic,
    write_prompts: Callable[..., str],
    photo: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of other prompts, number types, shapes and code anew; to the bit the same either way."""
    proven, real = [], SharedForward.prove
    monkeypatch.setattr(SharedForward, "prove", lambda *given: proven.append(given) or real(*given))
    asked = {"q": "Is it good?", "r": "Is it sharp?"}
    settings = dataclasses.replace(semantic, prompts=write_prompts(asked, order="image_first",
                                   template="{image} {prompt}"))  # fmt: skip

    def vectors(settings: Semantic) -> np.ndarray:
        extractor = ImageTextExtractor(settings)
        return np.stack(
            extractor.extract([extractor.preprocess(photo)], range(len(extractor.vectors)))
        )  # type: ignore[arg-type]

    first, again = vectors(settings), vectors(settings)
    assert len(proven) == 1
    assert np.array_equal(first, again)
    vectors(dataclasses.replace(settings, dtype="bfloat16"))
    vectors(dataclasses.replace(settings, prompts=write_prompts({"q": "Is it good?"}, "b.yaml")))
    assert len(proven) == 3
    own = write_prompts({"q": "Is it {image_prompt}?"}, "own.yaml")
    for _ in range(2):  # what each image has of its own is always proven
        extractor = ImageTextExtractor(dataclasses.replace(semantic, prompts=own))
        extractor.extract([extractor.preprocess(photo, "a cat")], [0])  # type: ignore[arg-type]
    assert len(proven) == 5
    monkeypatch.setattr("agiqa.stage1.extractors.lmm.model.code_sha256", lambda *_: "other")
    assert np.array_equal(vectors(settings), first)
    assert len(proven) == 6
