"""Data sets are found by name; a table that is older than what it is made from is refused.

`sources.json` tells DVC.
"""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import OFFICIAL
from agiqa.data.datasets.origin import (
    ALIASES,
    KINDS,
    SOURCES,
    FileDigests,
    canonical,
    require_fresh,
)
from agiqa.data.datasets.table import read_table
from kit import official_downloads
from kit.command import agiqa, refusal

OPTIONS = ("--image-column=file", "--score-column=mos", "--prompt-column=prompt")


def _picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images, their labels, and the table of them; all of it an hour old."""
    monkeypatch.chdir(tmp_path)
    for row in range(12):
        _picture(tmp_path / f"{row:02d}.png", row)
    labels = {
        "file": [f"{row:02d}.png" for row in range(12)],
        "mos": np.linspace(1, 5, 12),
        "prompt": [f"a {row // 2}" for row in range(12)],
    }
    pd.DataFrame(labels).to_csv("labels.csv", index=False)
    agiqa("prepare", "mine", "--from", "labels.csv", *OPTIONS)
    return tmp_path


def _refusal(protocol: str = "grouped") -> str:
    folder = Path("cache/mine")
    try:
        require_fresh(read_table(folder), folder, protocol)
    except AgiqaError as error:
        return str(error)
    return ""


def test_nothing_that_stays_is_refused(work: Path) -> None:
    assert _refusal() == ""
    os.utime("labels.csv", ns=(1, 1))
    os.utime("03.png", ns=(1, 1))
    assert _refusal() == ""  # the bytes are the same
    Path("labels.csv").rename("moved.csv")
    Path("03.png").unlink()
    assert _refusal() == ""  # the table stands for itself


@pytest.mark.parametrize("command", [("fit", "mine"), ("extract", "mine", "--dry-run")])
def test_commands_refuse_a_table_older_than_its_labels(
    work: Path, command: tuple[str, ...]
) -> None:
    text = Path("labels.csv").read_text().replace("03.png,2.09", "03.png,4.09")
    Path("labels.csv").write_text(text)
    out = refusal(*command)
    assert "older than what it was made from: labels.csv has changed since: run `agiqa prep" in out
    agiqa("prepare", "mine", "--from", "labels.csv", *OPTIONS)
    assert _refusal() == ""


def test_a_replaced_image_is_named(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of the same size, with the old time: the change time of the file tells."""
    before = Path("05.png").stat()
    content = bytearray(Path("05.png").read_bytes())
    content[-20] ^= 1
    Path("05.png").write_bytes(content)
    os.utime("05.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "made from: 05.png has changed since" in _refusal()
    folder = Path("cache/mine")
    require_fresh(read_table(folder), folder, skip_bad=True)
    assert "05.png changed since `agiqa prepare`" in caplog.text


def _import_smith() -> None:
    """Import a split as other people's, and change its file."""
    splits = pd.read_csv("cache/mine/splits/random.csv")
    splits.loc[splits["seed"] == 0, ["name", "side"]].to_csv("smith.csv", index=False)
    agiqa("splits", "import", "mine", "smith.csv", "--protocol", "smith")
    assert _refusal("smith") == ""
    Path("smith.csv").write_text(Path("smith.csv").read_text() + "\n")


def test_an_imported_split_file_is_watched_for_its_protocol_alone(work: Path) -> None:
    _import_smith()
    assert "smith.csv has changed" in _refusal("smith")
    assert _refusal("grouped") == ""
    agiqa("prepare", "mine", "--from", "labels.csv", *OPTIONS)
    assert "smith.csv has changed" in _refusal("smith")  # the imported protocol lies there still


def test_an_image_added_to_a_folder_is_told(work: Path) -> None:
    Path("pictures").mkdir()
    _picture(Path("pictures/a.png"), 1)
    agiqa("prepare", "holiday", "--from", "pictures")
    _picture(Path("pictures/b.png"), 2)
    assert "made from: b.png has changed" in refusal("extract", "holiday", "--dry-run")


def test_a_table_of_an_earlier_version_is_not_refused(work: Path) -> None:
    root = Path("cache/mine/root.json")
    root.write_text(json.dumps({"root": json.loads(root.read_text())["root"]}))
    Path("labels.csv").write_text("other")
    assert _refusal() == ""
    root.write_text('{"root": "..", "sources": {"labels": [1]}}')
    assert "root.json: damaged" in _refusal()


def test_what_changed_a_moment_ago_is_not_remembered(work: Path) -> None:
    old, new = Path("old.bin"), Path("new.bin")
    for path in (old, new):
        path.write_bytes(b"content")
    digests = FileDigests(Path("cache/mine"))
    real = digests.sha256([old, new, Path("none")])
    assert real[old] == real[new]
    assert real.pop(Path("none")) is None
    state, _ = digests._noted[str(old.absolute())]
    digests._noted[str(old.absolute())] = ((state[0], 1, 1), "0" * 64)
    digests.save([old, new])
    again = FileDigests(Path("cache/mine"))
    assert again._noted == {str(old.absolute()): ((state[0], 1, 1), "0" * 64)}
    assert again.sha256([old, new]) == real  # of other times than those: read
    Path("cache/mine/file_digests.txt").write_bytes(b"\xff damaged")
    assert FileDigests(Path("cache/mine")).sha256([old])[old] == real[old]


def test_sources_are_the_same_wherever_the_files_are(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note = ("prepare", "mine", "--only-sources", *OPTIONS, "--from")
    agiqa(*note, "labels.csv")
    path = Path("cache/mine") / SOURCES
    first = path.read_bytes()
    assert str(work).encode() not in first
    Path("elsewhere").mkdir()
    for file in [*work.glob("*.png"), work / "labels.csv"]:
        file.rename(work / "elsewhere" / file.name)
    agiqa(*note, "labels.csv")
    assert "not here, its table stays" in caplog.text
    assert path.read_bytes() == first
    agiqa(*note, "elsewhere/labels.csv")
    assert path.read_bytes() == first
    _picture(Path("elsewhere/07.png"), 99)
    agiqa(*note, "elsewhere/labels.csv")
    assert json.loads(path.read_bytes())["labels"] == json.loads(first)["labels"]
    assert path.read_bytes() != first


def test_a_mistake_in_the_labels_is_no_absence(work: Path) -> None:
    """Or `dvc repro` would keep every result of before, and end well."""
    note = ("prepare", "mine", "--only-sources", *OPTIONS, "--from", "labels.csv")
    agiqa(*note)
    good = Path("labels.csv").read_text()
    for bad in (f"{good}00.png,1,x,y,z,a,b\n", good.replace("file", "fiel", 1)):
        Path("labels.csv").write_text(bad)
        assert refusal(*note)


def test_a_split_file_that_was_imported_is_a_source(work: Path) -> None:
    note = ("prepare", "mine", "--only-sources", *OPTIONS, "--from", "labels.csv")
    agiqa(*note)
    _import_smith()
    assert "smith.csv has changed since it was imported" in refusal(*note)


def test_the_word_of_another_machine_is_not_taken(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its paths would be read here, whatever they are."""
    root = Path("cache/mine/root.json")
    noted = json.loads(root.read_text())
    for labels in ({"/proc/kmsg": "0" * 64}, {str(work / "labels.csv"): "0" * 64}):
        noted["sources"]["labels"] = labels
        root.write_text(json.dumps(noted))
        assert _refusal() == ""
    agiqa("prepare", "mine", "--from", "labels.csv", *OPTIONS)
    Path("labels.csv").write_text(Path("labels.csv").read_text() + "\n")
    assert "labels.csv has changed" in _refusal()
    monkeypatch.setattr("platformdirs.user_cache_path", lambda _: tmp_path / "another")
    assert _refusal() == ""


def test_without_files_and_without_a_note_it_is_an_error(work: Path) -> None:
    message = refusal("prepare", "new", "--only-sources", "--from", "no.csv", *OPTIONS)
    assert message.startswith("Error: no.csv: ")
    assert len(message.splitlines()) == 1


# Official data sets on the command line


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
    assert [t.name for t in table.targets] == list(OFFICIAL[name].facts.targets)
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
