"""AGIQA-1K, EvalMuse-40K and EvalMi-50K: official layouts in small, and what spoils them."""

import json
import logging
from pathlib import Path
from statistics import stdev

import pandas as pd
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import agiqa_1k, evalmi_50k, evalmuse_40k
from kit import official_downloads


def test_agiqa_1k(tmp_path: Path) -> None:
    table = agiqa_1k.prepare(official_downloads.agiqa_1k(tmp_path))
    frame = table.frame.set_index("path")
    assert table.root == tmp_path / "file"
    # the services number their objects apart, and the same words are the same prompt
    assert (
        frame.loc["deepai_7_7_1_1.jpg", "prompt"] == "man, playing football, wild, realistic style"
    )
    assert (
        frame.loc["dreamStudio_6_6_0_1.jpg", "prompt"] == "man, using phone, city, realistic style"
    )
    assert "dreamStudio_8_9_1_1.jpg" in frame.index  # as a file; the CSV spells it otherwise
    assert frame["generator"].value_counts().to_dict() == {"dreamStudio": 9, "deepai": 8}
    assert frame["quality"].iloc[0] == pytest.approx(40 / 22)


def test_evalmuse_40k(tmp_path: Path) -> None:
    table = evalmuse_40k.prepare(official_downloads.evalmuse_40k(tmp_path))
    first = table.frame.iloc[0]
    assert (first["path"], first["generator"], first["prompt"]) == (
        "LCM-SDXL/00000.png", "LCM-SDXL", "prompt 0",
    )  # fmt: skip
    assert (first["alignment"], first["alignment_sd"]) == (
        pytest.approx(4 / 3), pytest.approx(stdev([1, 2, 1])),
    )  # fmt: skip
    assert table.frame["alignment_raters"].tolist()[:5] == [3, 3, 3, 6, 3]
    (target,) = table.targets
    assert (target.scale, target.deviation, target.raters) == (
        (1, 5), "alignment_sd", "alignment_raters",
    )  # fmt: skip
    assert table.frame["group"].nunique() == 8


def test_evalmi_50k(tmp_path: Path) -> None:
    table = evalmi_50k.prepare(official_downloads.evalmi_50k(tmp_path))
    last = table.frame.iloc[-1]
    assert (last["path"], last["generator"], last["prompt"]) == (
        "vila-u/008.png", "vila-u", "a photo of a 7",
    )  # fmt: skip
    assert (last["quality"], last["correspondence"]) == (61.5, 60.5)
    assert [target.name for target in table.targets] == ["quality", "correspondence"]
    assert table.frame["group"].value_counts().tolist() == [2] * 8


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_list.json", "{", "expected a list of entries with prompt, img_path and total_sc"),
        ("train_list.json", "[{}]", r"ratings from 1 to 5 \(no 'img_path'\): take the official"),
        ("train_list.json", [7], "ratings from 1 to 5 .entry LCM-SDXL/00000.png has the ratings"),
        ("train_list.json", [], "entry LCM-SDXL/00000.png has no prompt or no ratings"),
    ],
)
def test_labels_of_evalmuse_that_are_none(
    tmp_path: Path, name: str, content: str | list[int], message: str
) -> None:
    file = official_downloads.evalmuse_40k(tmp_path) / name
    if isinstance(content, list):
        entries = json.loads(file.read_text())
        entries[0]["total_score"] = content
        content = json.dumps(entries)
    file.write_text(content)
    with pytest.raises(AgiqaError, match=message) as raised:
        evalmuse_40k.prepare(tmp_path)
    assert "\n" not in str(raised.value)


def test_names_that_are_not_the_data_sets(tmp_path: Path) -> None:
    csv = official_downloads.agiqa_1k(tmp_path / "a") / agiqa_1k.LABELS
    csv.write_text(csv.read_text().replace("deepai_0_0_0_1", "deepai_0_99_0_1"))
    with pytest.raises(AgiqaError, match=r"names such as deepai_8_7_1_0.jpg, found deepai_0_99"):
        agiqa_1k.prepare(tmp_path / "a")
    folder = official_downloads.evalmi_50k(tmp_path / "b")
    pd.DataFrame({"prompt": ["one"]}).to_excel(folder / evalmi_50k.PROMPTS, index=False)
    with pytest.raises(AgiqaError, match=r"a number up to 1, .*; found DALLE3/002.png: take both"):
        evalmi_50k.prepare(folder)


def test_what_is_absent_is_named_with_where_it_is(tmp_path: Path) -> None:
    for adapter, message in (
        (agiqa_1k, "expected AIGC_all.csv of AGIQA-1K, found nothing: .*lcysyzxdxc"),
        (evalmuse_40k, r"expected train_list.json of EvalMuse-40K, .*\(54 GB\)"),
        (evalmi_50k, "expected AIGI2025_MOS_yn.xlsx of EvalMi-50K, .*IntMeGroup"),
    ):
        with pytest.raises(AgiqaError, match=message):
            adapter.prepare(tmp_path)


def test_labels_of_another_version_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = official_downloads.agiqa_1k(tmp_path)
    with caplog.at_level(logging.WARNING):
        agiqa_1k.prepare(folder)
    assert "expected 1,080 rows, sha256 08befc166117…; found 17, sha256" in caplog.text
    facts = agiqa_1k.FACTS
    monkeypatch.setattr(agiqa_1k, "FACTS", type(facts)(**{**vars(facts), "images": 17}))
    next(folder.rglob("deepai*.jpg")).unlink()  # refuses the download, after the warning
    caplog.clear()
    with caplog.at_level(logging.WARNING), pytest.raises(AgiqaError, match="disagree: 1 of the"):
        agiqa_1k.prepare(folder)
    (line,) = caplog.messages
    assert "AIGC_all.csv is of another version: expected 17 rows, sha256 08be" in line
    assert "fetch it from https://github.com/lcysyzxdxc/AGIQA-1k-Database; go on only" in line
