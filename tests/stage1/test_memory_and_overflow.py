"""Too little memory and vectors that overflow: dealt with, said, and nothing lost.

What is remembered of models follows from all that it depends on, or is found out again.
"""

import dataclasses
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor, identity
from agiqa.stage1.extractors.identity import LEAST, ModelFolder, known_sha256
from agiqa.stage1.extractors.lmm.forward import SharedForward
from agiqa.store import read_pack
from kit.changed_weights import change_weights


def _small_gpu(monkeypatch: pytest.MonkeyPatch, room: int) -> list[int]:
    """A device with room for so many images; returns the sizes that were tried."""
    tried: list[int] = []
    encode = SharedForward.encode

    def limited(forward: SharedForward, arrays: Any, images: int) -> Any:
        tried.append(images)
        if images > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return encode(forward, arrays, images)

    monkeypatch.setattr(SharedForward, "encode", limited)
    return tried


def test_too_little_memory_halves_the_batch_and_is_remembered(
    semantic: Semantic,
    table: ImagesTable,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    samples = [ImageTextExtractor(semantic).preprocess(decode(p)) for p in table.paths()[:4]]
    whole = ImageTextExtractor(semantic).extract(samples, [0, 1])
    tried = _small_gpu(monkeypatch, room=2)
    with caplog.at_level(logging.WARNING):
        halved = ImageTextExtractor(semantic).extract(samples, [0, 1])
    assert tried[-3:] == [4, 2, 2]  # before them perhaps two that prove what prompts can share
    assert "Memory ran out with 4 images at a time (extraction): 2 now." in caplog.text
    for in_halves, at_once in zip(halved, whole, strict=True):
        np.testing.assert_allclose(in_halves, at_once, atol=1e-5)
    tried.clear()
    ImageTextExtractor(semantic).extract(samples, [0])
    assert set(tried) == {2}  # another run does not try what did not fit


def test_room_for_not_even_one_image_is_one_line(
    semantic: Semantic, table: ImagesTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = ImageTextExtractor(semantic)
    _small_gpu(monkeypatch, room=0)
    with pytest.raises(AgiqaError, match=r"with 1 image at a time.*finished vectors are kept") as e:
        extractor.extract([extractor.preprocess(decode(table.paths()[0]))], [0])
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_overflows_is_computed_again_in_float32(
    dtype: str,
    semantic: Semantic,
    tiny_lmm: Path,
    table: ImagesTable,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    loud = Path(shutil.copytree(tiny_lmm, tmp_path / "loud"))
    norm = "language_model.model.norm.weight"
    change_weights(loud, lambda name: 2e4 if name == norm else 1.0)  # some states beyond 65,504
    settings = dataclasses.replace(semantic, model=str(loud), precision="float32", dtype=dtype)
    with caplog.at_level(logging.WARNING):
        extract(table, ImageTextExtractor(settings), tmp_path / f"{dtype}.zarr", ledger=tmp_path)
    vectors = read_pack(tmp_path / f"{dtype}.zarr").vectors
    assert np.isfinite(vectors).all()
    assert np.abs(vectors).max() > 1000
    assert ("overflowed in float16" in caplog.text) == (dtype == "float16")


def test_images_without_finite_vectors_are_left_out_when_told(
    semantic: Semantic, table: ImagesTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ImageTextExtractor.extract

    def odd(self: ImageTextExtractor, samples: Any, wanted: Any) -> list[np.ndarray]:
        rows = original(self, samples, wanted)
        rows[0][1] = np.nan  # the second image of each batch
        return rows

    monkeypatch.setattr(ImageTextExtractor, "extract", odd)
    store = tmp_path / "odd.zarr"
    with pytest.raises(AgiqaError, match=r"3 images of 'ten' gave vectors that are not finite"):
        extract(table, ImageTextExtractor(semantic), store, ledger=tmp_path)
    assert not store.exists()
    done = extract(table, ImageTextExtractor(semantic), store, ledger=tmp_path, skip_bad=True)
    assert (done.images, len(done.bad)) == (9, 1)  # of the three left, one is second again
    assert len(read_pack(store).left_out) == 1


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to be hashed."""
    read, real = list[Path](), identity.file_sha256
    monkeypatch.setattr(identity, "file_sha256", lambda path: read.append(path) or real(path))
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
    monkeypatch.setattr(identity, "STEP", -(10**12))  # from now on all is settled
    assert [known_sha256(file) for _ in range(3)] == [first] * 3
    assert len(hashed) == 3
    file.write_bytes(b"b" * LEAST)  # the same size, and soon the same time of content
    settle(file)
    assert known_sha256(file) != first
    identity.memory_file().write_text("{ damaged")
    assert known_sha256(file) != first
    assert len(hashed) == 5


def test_a_part_is_digested_once_until_its_file_changes(
    tiny_lmm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "STEP", -(10**12))
    folder = ModelFolder("tiny", tiny_lmm)
    first = folder.part_identity("vision_tower.")
    monkeypatch.setattr("agiqa.stage1.extractors.identity._part_sha256", lambda *_: "0" * 64)
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
