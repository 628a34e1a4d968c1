"""Official data sets on the command line: listed, found by name, prepared whole or not at all."""

import json
from pathlib import Path

import pytest
import yaml

from agiqa.data.datasets import OFFICIAL
from agiqa.data.datasets.table import read_table
from agiqa.data.sources import ALIASES, KINDS, canonical
from kit import official_downloads
from kit.command import agiqa, refusal


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of data sets, $AGIQA_DATA, beside the working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("AGIQA_DATA", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


def _listed() -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in json.loads(agiqa("datasets", "--json").stdout)}


def test_other_names_are_of_official_data_sets() -> None:
    assert set(ALIASES.values()) <= set(OFFICIAL)
    assert not set(ALIASES) & set(KINDS)
    assert canonical("AIGCQA-30K-Image") == "aigiqa-20k"
    assert canonical("SPAQ") == "spaq"
    assert canonical("Mine") == "Mine"


@pytest.mark.parametrize("name", ["agiqa-3k", "aigiqa-20k", "koniq-10k", "spaq"])
def test_prepared_from_the_shelf_by_name_alone(shelf: Path, name: str) -> None:
    getattr(official_downloads, name.replace("-", "_"))(shelf / name)
    assert _listed()[name]["here"] == "in place"
    output = agiqa("prepare", name).stdout
    photographs = name in ("koniq-10k", "spaq")
    assert ("no prompts are known" in output) == photographs
    assert ("share a prompt" in output) != photographs
    grouped = agiqa("splits", "show", name).stdout
    assert ("no prompts known" in grouped) == photographs
    table = read_table(Path("cache") / name)
    assert table.name == name
    assert [t.name for t in table.targets] == list(OFFICIAL[name].FACTS.targets)
    assert all(path.is_file() for path in table.paths())
    data_set = _listed()[name]
    assert (data_set["here"], data_set["prepared"]) == ("prepared", f"cache/{name}")
    assert data_set["place"] == str(shelf / name)


def test_another_name_reads_the_same_and_is_kept(shelf: Path) -> None:
    official_downloads.aigiqa_20k(shelf / "aigiqa-20k")
    output = agiqa("prepare", "AIGCQA-20K").stdout
    assert "quality 0.2…4.7 (18 of 33 images)" in output  # its other sides keep their scores secret
    assert read_table(Path("cache/AIGCQA-20K")).name == "AIGCQA-20K"
    agiqa("prepare", "aigcqa-30k-image")
    assert _listed()["aigiqa-20k"]["prepared"] == "cache/aigcqa-30k-image"


def test_the_settings_name_kind_and_folder(shelf: Path, tmp_path: Path) -> None:
    official_downloads.koniq_10k(tmp_path / "photos")
    sources = {
        "koniq-10k": {"path": str(tmp_path / "photos")},
        "wild": {"kind": "koniq10k", "path": str(tmp_path / "photos")},
        "odd": {"kind": "koniq", "path": str(tmp_path / "photos")},
    }
    Path("params.yaml").write_text(yaml.safe_dump({"sources": sources}))
    assert _listed()["koniq-10k"]["here"] == "in place"
    agiqa("prepare", "koniq-10k")
    agiqa("prepare", "wild")
    assert len(read_table(Path("cache/wild")).frame) == 20
    message = "sources.odd.kind is 'koniq' in the settings; expected one of"
    assert message in refusal("prepare", "odd")


def test_the_list_for_people_and_for_cut(shelf: Path) -> None:
    official_downloads.spaq(shelf / "spaq")
    (shelf / "spaq/TestImage").rename(shelf / "spaq/Images")
    header, *rows = [line.split("\t") for line in agiqa("datasets").stdout.splitlines()]
    assert [row[0] for row in rows] == list(OFFICIAL)
    first = dict(zip(header, rows[0], strict=True))
    assert first["images"] == "2,982"
    assert first["targets"] == "quality 0…4.489, align 0.021…4.286"
    assert (first["licence"], first["here"]) == ("MIT", "no")
    assert first["made by"] == "6 generators, 300 prompts"
    assert first["raters"] == "21 (arXiv 2306.04717)"
    assert "github.com/lcysyzxdxc/AGIQA-3k-Database" in first["get"]
    data_set = _listed()["spaq"]
    assert data_set["here"] == "incomplete"
    problem = "expected the folder TestImage of SPAQ, found Annotations, Images"
    assert problem in str(data_set["problem"])


def test_nothing_half_is_written(shelf: Path) -> None:
    official_downloads.koniq_10k(shelf / "koniq-10k")
    first = shelf / "koniq-10k/1024x768/10004473376.jpg"
    whole = first.read_bytes()
    first.write_bytes(whole[:200])
    assert "1 of 20 images cannot be used: 10004473376.jpg" in refusal("prepare", "koniq-10k")
    assert not Path("cache").exists()
    first.write_bytes(whole)
    agiqa("prepare", "koniq-10k")
    before = {p: p.read_bytes() for p in Path("cache").rglob("*") if p.is_file()}
    first.unlink()
    assert "1 of the 20 that it lists does not exist" in refusal("prepare", "koniq-10k")
    assert {p: p.read_bytes() for p in Path("cache").rglob("*") if p.is_file()} == before
    skipped = agiqa("prepare", "koniq-10k", "--skip-bad")
    assert "Skipped 10004473376.jpg: does not exist" in skipped.stderr


def test_download_is_for_official_data_sets(shelf: Path) -> None:
    result = agiqa("prepare", "mine", "--from", "labels.csv", "--download", status=2)
    assert "'mine' is read as csv" in " ".join(result.stderr.split())
