"""`agiqa cache diff`: every field that differs between a store and the settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agiqa.core.params import load
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import read_table, write_table
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import semantic_extractor
from agiqa.stage1.pack_comparison import compare
from kit.cache_project import agiqa

QUESTIONS = {"sharp": "Is it sharp?", "whole": "Is it whole?"}


@pytest.fixture
def extracted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_lmm: Path,
    write_images: Callable[..., Path],
    write_prompts: Callable[..., str],
) -> Callable[..., list[str]]:
    """Extracts six images; gives the settings as options, changed or not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    write_table(
        folder.prepare(write_images(*[f"{r}.png" for r in range(6)]), "six"), Path("cache/six")
    )
    prompts = write_prompts(QUESTIONS)

    def options(**changed: object) -> list[str]:
        settings = {"name": "tiny", "model": tiny_lmm, "prompts": prompts, "batch_size": 4}
        return [f"--set=semantic.{key}={value}" for key, value in (settings | changed).items()]

    run(options())
    return options


def run(options: list[str]) -> None:
    params = load(None, tuple(option.removeprefix("--set=") for option in options))
    extractor = semantic_extractor(params.semantic)
    extract(read_table(Path("cache/six")), extractor, Path("cache/six/tiny.zarr"), workers=0)


def diff(*arguments: str) -> str:
    result = agiqa("cache", "diff", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


PACK = "cache/six/tiny.zarr"


def test_nothing_would_be_computed(extracted: Any) -> None:
    shown = diff(PACK, *extracted())
    assert shown.splitlines()[1:] == ["unchanged: sharp, whole"]
    assert diff(PACK, *extracted(batch_size=2, workers=0)) == shown


def test_a_setting_is_named_with_both_values_and_nothing_is_created(extracted: Any) -> None:
    before = sorted(Path("ledger").iterdir())
    shown = diff(PACK, *extracted(dtype="bfloat16"))
    assert "in 2 vectors (sharp, whole)\n  dtype: float32 -> bfloat16\n" in shown
    assert sorted(Path("ledger").iterdir()) == before
    tree = json.loads(diff(PACK, *extracted(dtype="bfloat16"), "--json"))
    field = {"field": "dtype", "there": "float32", "now": "bfloat16"}
    assert tree["changed"] == {"sharp": [field], "whole": [field]}


def test_prompts_added_removed_renamed_and_changed(
    extracted: Any, write_prompts: Callable[..., str]
) -> None:
    more = {**QUESTIONS, "more": "Are there hands?"}
    shown = diff(PACK, *extracted(prompts=write_prompts(more, "more.yaml")))
    assert "added: more\nunchanged: sharp, whole\n" in shown
    other = {"crisp": QUESTIONS["sharp"], "whole": "Is it broken?"}
    shown = diff(PACK, *extracted(prompts=write_prompts(other, "other.yaml")))
    assert "in whole\n  prompt.text: Is it whole? -> Is it broken?\n" in shown
    assert "renamed: sharp -> crisp (nothing else changed)" in shown
    shown = diff(PACK, *extracted(prompts=write_prompts({"sharp": "Is it sharp?"}, "1.yaml")))
    assert "removed: whole" in shown


def test_a_shelf_against_the_settings(extracted: Any) -> None:
    shelf = min(path.name for path in Path("ledger").iterdir())
    assert "unchanged: " in diff(shelf, *extracted())
    assert "stored_as: float16 -> float32" in diff(shelf, *extracted(precision="float32"))


def test_a_pack_of_another_name_goes_by_what_it_holds(extracted: Any) -> None:
    Path(PACK).rename("cache/six/old.zarr")
    shown = diff("cache/six/old.zarr", *extracted())
    assert "section semantic, by what it holds: old is no name in the settings" in shown


def test_swapped_names_are_renames() -> None:
    one, two = {"prompt": "one"}, {"prompt": "two"}
    found = compare({"a": one, "b": two}, {"b": one, "c": two})
    assert found.renamed == {"b": "c"}
    assert dict(found.changed) == {}
    assert found.added == ()
