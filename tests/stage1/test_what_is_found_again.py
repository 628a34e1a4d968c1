"""What is found in the ledger again, and what never may be."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from agiqa.core.params import Semantic
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor

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


def changed(model: Path, target: Path, file: str, **values: object) -> str:
    """A copy of the model with other values in one of its JSON files."""
    shutil.copytree(model, target)
    path = target / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return str(target)


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


def test_a_changed_byte_is_another_image(computed: Callable[..., int], table: ImagesTable) -> None:
    with table.paths()[3].open("ab") as file:
        file.write(b"\0")  # behind the image's end: it decodes as before
    assert computed(images=folder.prepare(table.root, "ten")) == 2


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.4]}),
        ("preprocessor_config.json", {"resample": 2}),
        ("config.json", {"note": "any word counts, one that no model reads, too"}),
    ],
)
def test_another_preprocessing_or_configuration_never_hits(
    computed: Callable[..., int],
    asked: Semantic,
    tiny_lmm: Path,
    tmp_path: Path,
    file: str,
    values: dict[str, object],
) -> None:
    model = changed(tiny_lmm, tmp_path / "model", file, **values)
    assert computed(dataclasses.replace(asked, model=model)) == 20


def test_another_weight_never_hits(
    computed: Callable[..., int], asked: Semantic, tiny_lmm: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_lmm, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[0] += 0.5
    save_file(weights, path, metadata={"format": "pt"})
    assert computed(dataclasses.replace(asked, model=str(tmp_path / "model"))) == 20
    shutil.copytree(tiny_lmm, tmp_path / "the same under another name")
    same = dataclasses.replace(asked, model=str(tmp_path / "the same under another name"))
    assert computed(same) == 0


@pytest.mark.parametrize(
    "setting", [{"dtype": "bfloat16"}, {"attention": "eager"}, {"precision": "float32"}]
)
def test_another_arithmetic_never_hits(
    computed: Callable[..., int], asked: Semantic, setting: dict[str, str]
) -> None:
    assert computed(dataclasses.replace(asked, **setting)) == 20


@pytest.mark.parametrize(
    "key",
    [
        {"template": "HUMAN: {prompt}\n{image} ASSISTANT:"},
        {"pooling": "last"},
    ],
)
def test_another_template_or_pooling_never_hits(
    computed: Callable[..., int], asked: Semantic, write_prompts: Prompts, key: dict[str, str]
) -> None:
    prompts = write_prompts(QUESTIONS, "other.yaml", **key)
    assert computed(dataclasses.replace(asked, prompts=prompts)) == 20
