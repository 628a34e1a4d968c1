"""One key for prompts, wherever they are compared; the table, splits and audit that follow it."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.groups import prompt_key
from agiqa.data.datasets.table import read_table
from agiqa.data.splits.files import read_protocol, write_splits
from agiqa.data.splits.protocols import make_splits
from kit.command import agiqa


@pytest.mark.parametrize(
    "spelled",
    [
        "Statue  of a\tman",
        " statue of a man\n",
        "statue\u00a0of\u2003a\u3000man",  # other kinds of space
        "sta\u200btue of\u200d a man\ufeff",  # zero width
        "ｓｔａｔｕｅ of a man",  # full width
        "statue of a m\u00adan\x00",  # a soft hyphen, a control character
        "STATUE OF A MAN",
    ],
)
def test_what_nobody_sees_makes_no_other_prompt(spelled: str) -> None:
    assert prompt_key(spelled) == "statue of a man"


def test_other_words_and_accents_are_other_prompts() -> None:
    assert prompt_key("Stra\u00dfe") == prompt_key("STRASSE")
    assert prompt_key("cafe\u0301") == prompt_key("caf\u00e9") != prompt_key("cafe")
    assert prompt_key("a man") != prompt_key("aman") != prompt_key("a, man")
    assert prompt_key(" \u200b\u00a0\n") == ""


@given(st.text())
def test_the_key_of_a_key_is_itself(text: str) -> None:
    key = prompt_key(text)
    assert prompt_key(key) == key
    assert prompt_key(f"  {text}\u200b ") == key


def _labels(folder: Path, **columns: list[str]) -> Path:
    """40 images, two of each prompt, which differs in inner white space (cases/labels/ws.csv)."""
    rng = np.random.default_rng(0)
    prompts = [f"statue{'  ' if row % 2 else ' '}of man{row // 2}" for row in range(40)]
    for row in range(40):
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image.save(folder / f"{row:02d}.png")
    table = {"file": [f"{row:02d}.png" for row in range(40)], "mos": rng.uniform(1, 5, 40)}
    csv = folder / "labels.csv"
    pd.DataFrame(table | {"prompt": prompts} | columns).to_csv(csv, index=False)
    return csv


def _prepare(csv: Path, *options: str) -> dict[str, str]:
    arguments = ["prepare", "mine", "--from", csv, "--image-column", "file", "--json",
                 "--score-column", "mos", "--prompt-column", "prompt", *options]  # fmt: skip
    result: dict[str, str] = json.loads(agiqa(*arguments).stdout)
    return result


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGIQA_HASHES", str(tmp_path / "hashes"))
    return tmp_path


def _audit(protocol: str) -> dict[str, int]:
    done = agiqa("splits", "audit", "mine", "--protocol", protocol, "--json", "--distance", "0")
    across = json.loads(done.stdout)["protocols"][protocol]["across"]
    rows = [row for row in across if (row["side"], row["other"]) == ("test", "train and val")]
    return {kind: sum(row[kind] for row in rows) for kind in ("same_prompt", "same_group")}


def test_prompts_that_differ_in_white_space_stand_on_one_side(work: Path) -> None:
    result = _prepare(_labels(work))
    assert "; 0 % of test images share a prompt with training or val" in result["split_grouped"]
    table = read_table(Path("cache/mine"))
    assert table.frame["group"].nunique() == 20
    assert _audit("grouped") == {"same_prompt": 0, "same_group": 0}
    leaky = _audit("random")
    assert leaky["same_prompt"] == leaky["same_group"] > 30
    share = result["split_random"].split("; ")[1].split(" % of")[0]
    assert float(share) == pytest.approx(100 * leaky["same_prompt"] / 80, abs=0.6)


def test_own_groups_are_names_and_leaked_prompts_are_counted_beside(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each image a group: every second test image still shares its prompt with training."""
    csv = _labels(work, scene=[f"{'S' if row % 2 else 's'}{row // 2}" for row in range(40)])
    with caplog.at_level(logging.WARNING):
        result = _prepare(csv, "--group-column", "scene")
    assert "'s0' and 'S0'" in caplog.text
    shares = result["split_grouped"]
    assert "0 % of test images share a group and " in shares
    counted = _audit("grouped")
    assert counted["same_group"] == 0
    assert counted["same_prompt"] > 20
    shown = agiqa("splits", "show", "mine").stdout
    assert "group shared" in shown
    frame = read_table(Path("cache/mine")).frame
    assert list(frame["group"][:2]) == ["s0", "S0"]


def test_the_prompt_column_as_group_column_is_the_default(work: Path) -> None:
    _prepare(_labels(work), "--group-column", "prompt")
    assert read_table(Path("cache/mine")).frame["group"].nunique() == 20


def test_splits_dealt_by_another_key_are_refused(work: Path) -> None:
    _prepare(_labels(work))
    folder = Path("cache/mine")
    table = read_table(folder)
    by_case_alone = table.frame["prompt"].str.casefold().str.strip()
    other = replace(table, frame=table.frame.assign(group=by_case_alone))
    write_splits(make_splits(other, "grouped"), folder / "splits" / "grouped.csv")
    with pytest.raises(AgiqaError, match=r"expected each group .* on one side, found \d+ of split"):
        read_protocol(folder, table, "grouped")
