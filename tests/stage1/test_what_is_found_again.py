"""What is found in the ledger again: by the bytes of images, by what makes the vectors."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agiqa.core.params import Semantic
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor
from kit.changed_weights import change_weights

Prompts = Callable[..., str]
QUESTIONS = {"sharp": "Is it sharp?", "whole": "Is it whole?"}


@pytest.fixture
def asked(semantic: Semantic, write_prompts: Prompts) -> Semantic:
    return dataclasses.replace(semantic, prompts=write_prompts(QUESTIONS))


@pytest.fixture
def computed(table: ImagesTable, asked: Semantic, tmp_path: Path) -> Callable[..., int]:
    """Vectors computed for these settings and images; two of ten images are there before."""

    def count(settings: Semantic = asked, images: ImagesTable = table) -> int:
        count.calls += 1
        store = tmp_path / "packs" / f"{count.calls}.zarr"  # each its own: none gives rows back
        extractor = ImageTextExtractor(settings)
        return extract(images, extractor, store, ledger=tmp_path / "ledger", workers=0).computed

    count.calls = 0
    assert count() == 20
    return count


def test_renamed_moved_and_copied_files_and_other_data_sets_hit(
    computed: Callable[..., int], table: ImagesTable, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "deeper"
    moved.mkdir(parents=True)
    for number, path in enumerate(table.paths()[:6]):
        shutil.copy(path, moved / f"renamed {number}.png")
        shutil.copy(path, moved / f"copy of {number}.png")
    again = folder.prepare(moved.parent, "another data set")
    assert len(again.frame) == 12
    assert computed(images=again) == 0


def test_prompts_shared_between_sets_hit(
    computed: Callable[..., int], asked: Semantic, write_prompts: Prompts
) -> None:
    more = {"renamed": QUESTIONS["whole"], "fair": "Is it fair?"}
    prompts = write_prompts(more, "other.yaml", name="other", citation="another")
    assert computed(dataclasses.replace(asked, prompts=prompts)) == 10
    assert computed(dataclasses.replace(asked, name="other", batch_size=3, workers=1)) == 0


def test_a_model_of_another_name_hits_and_one_of_another_weight_does_not(
    computed: Callable[..., int], asked: Semantic, tiny_lmm: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_lmm, tmp_path / "the same under another name"))
    settings = dataclasses.replace(asked, model=str(model))
    assert computed(settings) == 0
    change_weights(model, lambda name: 1.5 if "multi_modal_projector" in name else 1.0)
    assert computed(settings) == 20


def test_a_changed_byte_is_another_image(computed: Callable[..., int], table: ImagesTable) -> None:
    with table.paths()[3].open("ab") as file:
        file.write(b"\0")  # behind the image's end: it decodes as before
    assert computed(images=folder.prepare(table.root, "ten")) == 2
