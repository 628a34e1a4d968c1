"""What stands against one image ends no other's work; it is named, counted and foreseen."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImagesError, decode
from agiqa.stage1.estimate import estimate
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor
from agiqa.stage1.extractors.contract import RefusedError
from agiqa.stage1.extractors.lmm.forward import SharedForward
from agiqa.stage1.one_machine import OneMachine
from agiqa.stage1.vectors import FileVectors, vectors_of_images
from agiqa.store import read_pack
from agiqa.store.row_ids import Source
from kit.command import agiqa
from kit.families import LMMS

ODD = (61, 7)  # the size of images that the tests' model does not take


@pytest.fixture
def refusing(refuse_size: Callable) -> None:
    """The model does not take ODD images."""
    refuse_size(ODD)


@pytest.fixture
def with_odd(table: ImagesTable) -> ImagesTable:
    """Ten images, of which the fourth and the eighth are odd."""
    from agiqa.data.datasets import folder

    for row in (3, 7):
        pixels = np.random.default_rng(row).integers(0, 256, (ODD[1], ODD[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(table.root / f"{row}.png")
    return folder.prepare(table.root, "ten")


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_the_processor_refuses_are_left_to_the_end(
    with_odd: ImagesTable, semantic: Semantic, tmp_path: Path, refusing: None, workers: int
) -> None:
    store, ledger = tmp_path / "s.zarr", tmp_path / "ledger"
    extractor = ImageTextExtractor(semantic)
    with pytest.raises(
        BadImagesError,
        match=r"^2 images of 'ten' cannot be used with 'tiny': .*3\.png; .*7\.png \(\w+ refuses an "
        r"image of 61 x 7 pixels: absolute aspect ratio.*\)\. All other vectors are kept; .*--skip",
    ) as caught:
        extract(with_odd, extractor, store, ledger=ledger, workers=workers)
    assert [Path(bad.path).name for bad in caught.value.bad] == ["3.png", "7.png"]
    assert not store.exists()
    done = extract(with_odd, extractor, store, ledger=ledger, workers=workers, skip_bad=True)
    assert (done.images, done.cached, done.computed) == (8, 16, 0)  # all others were done
    assert [Path(bad.path).name for bad in done.bad] == ["3.png", "7.png"]
    assert len(read_pack(store).left_out) == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "Memory ran out with 1 image at a time"),
        (RuntimeError("shape '[1, 2]' is invalid"), r"Model 'tiny-lmm' failed \(RuntimeError: sha"),
        (
            IndexError("index out of range\nin self"),
            r"Model 'tiny-lmm' failed \(IndexError: index out",
        ),
    ],
)
def test_an_image_that_the_model_fails_on_is_found_in_its_batch(
    error: Exception,
    reason: str,
    table: ImagesTable,
    semantic: Semantic,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = dataclasses.replace(semantic, batch_size=8)
    whole = ImageTextExtractor(settings)
    reference = extract(table, whole, tmp_path / "whole.zarr", ledger=tmp_path / "other")
    poison = whole.preprocess(decode(table.paths()[5])).arrays["pixel_values"]
    encode = SharedForward.encode

    def failing(forward: SharedForward, arrays: Any, images: int) -> Any:
        if any(np.array_equal(row.numpy(), poison[0]) for row in arrays["pixel_values"]):
            raise error
        return encode(forward, arrays, images)

    monkeypatch.setattr(SharedForward, "encode", failing)
    store = tmp_path / "s.zarr"
    extractor = ImageTextExtractor(settings)
    with pytest.raises(BadImagesError, match=rf"^1 images of 'ten' .*5\.png: {reason}") as caught:
        extract(table, extractor, store, ledger=tmp_path / "ledger")
    assert "\n" not in str(caught.value)
    done = extract(table, extractor, store, ledger=tmp_path / "ledger", skip_bad=True)
    assert (done.images, done.computed) == (9, 0)
    kept = read_pack(store)
    np.testing.assert_allclose(
        kept.vectors.astype(np.float32),
        read_pack(tmp_path / "whole.zarr").rows(list(kept.image_ids)).astype(np.float32),
        atol=2e-3,
    )
    assert reference.images == 10


def test_a_model_that_fails_on_every_image_is_one_line_soon(
    table: ImagesTable, semantic: Semantic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def failing(forward: SharedForward, arrays: Any, images: int) -> Any:
        tried.append(images)
        raise TypeError("forward() got an unexpected keyword argument 'image_sizes'")

    monkeypatch.setattr(SharedForward, "encode", failing)
    with pytest.raises(
        AgiqaError, match=r"^Model 'tiny-lmm' failed \(TypeError: .*: so it does with each of 3 im"
    ):
        extract(table, ImageTextExtractor(semantic), tmp_path / "s.zarr", ledger=tmp_path / "l")
    assert len(tried) < 8


def test_images_without_a_generation_prompt_are_named_before_any_work(
    table: ImagesTable, semantic: Semantic, tmp_path: Path, write_prompts: Callable
) -> None:
    words = ["a dog"] * 9 + [""]
    prompted = dataclasses.replace(table, frame=table.frame.assign(prompt=words))
    settings = dataclasses.replace(
        semantic, prompts=write_prompts({"match": "Is it {image_prompt}?"})
    )
    extractor, store = ImageTextExtractor(settings), tmp_path / "s.zarr"
    with pytest.raises(
        BadImagesError, match=r"^1 images of 'ten' have no generation prompt.*9\.png.*--prompt-colu"
    ):
        extract(prompted, extractor, store, ledger=tmp_path / "ledger")
    done = extract(prompted, extractor, store, ledger=tmp_path / "ledger", skip_bad=True)
    assert (done.images, len(done.bad)) == (9, 1)


def test_one_prompt_that_is_too_long_or_has_unknown_tokens(
    table: ImagesTable, semantic: Semantic, tiny_lmm: Path, tmp_path: Path, write_prompts: Callable
) -> None:
    folder = Path(shutil.copytree(tiny_lmm, tmp_path / "larger"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["Weltschmerz"])
    tokenizer.save_pretrained(folder)
    words = ["a dog"] * 8 + ["Weltschmerz", "a dog " * 500]
    prompted = dataclasses.replace(table, frame=table.frame.assign(prompt=words))
    settings = dataclasses.replace(
        semantic,
        model=str(folder),
        prompts=write_prompts({"match": "Is it {image_prompt}?", "sharp": "Is it sharp?"}),
    )
    extractor, ledger = ImageTextExtractor(settings), tmp_path / "ledger"
    foreseen = estimate(prompted, extractor, ledger=ledger).bad
    done = extract(prompted, extractor, tmp_path / "s.zarr", ledger=ledger, skip_bad=True)
    assert done.images == 8
    assert sorted(foreseen, key=str) == sorted(done.bad, key=str)
    reasons = {Path(bad.path).name: bad.reason for bad in done.bad}
    assert (
        f"has an embedding of {rows} tokens, but its tokenizer gives the ids {rows}:"
        in (reasons["8.png"])
    )
    assert "tokens, more than the 2,048 that 'larger' takes" in reasons["9.png"]
    common = dataclasses.replace(settings, prompts=write_prompts({"mood": "Is it Weltschmerz?"}))
    with pytest.raises(AgiqaError, match=rf"'larger' .* gives the ids {rows}: .*prompt 'mood'"):
        extract(prompted, ImageTextExtractor(common), tmp_path / "t.zarr", ledger=ledger)


def test_images_in_memory_that_are_refused_are_named_by_their_place(
    semantic: Semantic, refusing: None
) -> None:
    extractor = ImageTextExtractor(semantic)
    images = [Image.new("RGB", (40, 40)), Image.new("RGB", ODD)]
    with pytest.raises(RefusedError, match=r"^image 1 of 2: \w+ refuses an image of 61 x 7"):
        vectors_of_images(images, extractor)
    with pytest.raises(RefusedError, match=r"^\w+ refuses an image"):
        vectors_of_images(images[1:], extractor)


def test_vectors_of_files_are_kept_before_the_bad_are_told(
    with_odd: ImageTextExtractor, semantic: Semantic, tmp_path: Path, refusing: None
) -> None:
    extractor = ImageTextExtractor(semantic)
    sources = {
        name: Source(name, path)
        for name, path in zip(with_odd.frame["image_id"], with_odd.paths(), strict=True)
    }
    vectors_of_files = FileVectors(extractor, tmp_path / "ledger", OneMachine(0))
    with pytest.raises(BadImagesError, match=r"3\.png") as caught:
        vectors_of_files(sources)
    lost = {bad.path for bad in caught.value.bad}
    good = {name: source for name, source in sources.items() if str(source.path) not in lost}
    assert len(good) == 8
    extractor.preprocess = None  # type: ignore[assignment]  # nothing is looked at again
    assert len(vectors_of_files(good)[0]) == 8


def test_qwen_refuses_what_it_cannot_take_and_every_family_says_so_in_one_line(
    family_folder: Callable,
) -> None:
    for family in LMMS:
        extractor = ImageTextExtractor(Semantic(model=str(family_folder(family))))
        extractor.preprocess(Image.new("RGB", (1, 1)))
        if not family.startswith("qwen"):
            continue
        for size in ((1, 300), (300, 1)):
            with pytest.raises(
                RefusedError, match=rf"refuses an image of {size[0]} x {size[1]} pixels: .*aspect"
            ) as caught:
                extractor.preprocess(Image.new("RGB", size))
            assert "\n" not in str(caught.value)


@pytest.fixture
def workspace(
    with_odd: ImagesTable, tiny_lmm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with the data set prepared and settings of tiny models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    visual = dataclasses.asdict(
        Visual(name="eye", model=str(tiny_lmm), layers=(1,), image_size=32, closeup=0, workers=0)
    )
    settings = {
        "semantic": {"name": "tiny", "model": str(tiny_lmm), "batch_size": 4, "workers": 0},
        "visual": visual | {"layers": [1], "pool": ["mean"]},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    agiqa("prepare", "ten", "--from", with_odd.root)
    return tmp_path


def test_the_command_does_the_other_extractor_first_and_fails_in_one_line(
    workspace: Path, refusing: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        done = agiqa("extract", "ten", status=1)
    assert "eye.zarr: 10 images" in done.output  # the visual vectors are there
    assert "2 images of 'ten' cannot be used with 'tiny'" in str(done.exception) + done.output
    assert not (workspace / "cache/ten/tiny.zarr").exists()
    done = agiqa("extract", "ten", "--skip-bad")
    assert "tiny.zarr: 8 images" in done.output
    assert done.output.count("Skipped ") == 2


def test_a_dry_run_foresees_them_and_leaves_nothing(workspace: Path, refusing: None) -> None:
    done = agiqa("extract", "ten", "--dry-run", status=1)
    assert done.output.count("Bad ") == 2
    assert "refuses an image of 61 x 7 pixels" in done.output
    output = agiqa("extract", "ten", "--dry-run", "--skip-bad", "--json")
    figures = json.loads(output.stdout)
    assert [Path(bad["path"]).name for bad in figures["semantic"]["bad"]] == ["3.png", "7.png"]
    assert figures["visual"]["bad"] == []
    assert figures["semantic"]["cost"]["images"] == 4
    assert not (workspace / "ledger").exists()


def test_a_dry_run_counts_absent_images_as_bad(workspace: Path) -> None:
    (workspace / "images/0.png").unlink()
    done = agiqa("extract", "ten", "--only", "visual", "--dry-run", status=1)
    assert "0.png: does not exist" in done.output
    assert not (workspace / "ledger").exists()
