"""`agiqa cache verify`: says what is bad, exits with 1, and mends each layer from the other."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from agiqa.core.params import load
from agiqa.stage1.extractors import VisionExtractor
from agiqa.store import Shelf, read_pack
from kit.cache_project import Project, agiqa
from kit.stored_rows import files, flip


def test_everything_whole(project: Project) -> None:
    before = files(project.ledger) | files(Path("cache"))
    result = agiqa("cache", "verify")
    assert result.exit_code == 0, result.output
    assert "checked 2 shelves and 1 pack: 120 rows, 2 segments, 1 chunk," in result.stdout
    assert result.stdout.endswith("nothing bad\n")
    assert files(project.ledger) | files(Path("cache")) == before
    one = agiqa("cache", "verify", project.pack)
    assert "checked 0 shelves and 1 pack: 40 rows" in one.stdout


def test_each_bad_thing_is_printed_and_nothing_is_changed(project: Project) -> None:
    flip(project.segment("a"), -1)
    flip(project.segment("b"), 800)
    flip(project.pack / "zarr.json", 300)
    before = files(project.ledger) | files(Path("cache"))
    result = agiqa("cache", "verify")
    assert result.exit_code == 1
    assert result.stdout.count("-40.safetensors: fails its checksum: 1 row (") == 2
    assert "BAD    cache/mine/nano.zarr" in result.stdout
    assert "3 findings in 3 stores, 2 bad rows; --repair" in result.stdout
    assert result.stderr == ""
    assert files(project.ledger) | files(Path("cache")) == before
    found = json.loads(agiqa("cache", "verify", "--json").stdout)
    assert sum(len(finding["rows"]) for store in found for finding in store["findings"]) == 2


def test_a_shelf_is_mended_from_a_pack(project: Project) -> None:
    """A flipped bit, a segment cut short and a lost description."""
    flip(project.segment("a"), -1)
    os.truncate(path := project.segment("b"), 900)
    flip(path.parents[1] / "fingerprint.json", 100)
    first = project.segment("a").name
    result = agiqa("cache", "verify", "--repair")
    assert result.exit_code == 0, result.output
    said = [line.strip() for line in result.stdout.splitlines() if "repaired:" in line]
    assert said == [
        f"repaired: segments/{first}: written anew, rows saved: 39, dropped: 1",
        "repaired: rows that it lacked taken from packs: 1",
        "repaired: fingerprint.json: written anew, out of cache/mine/nano.zarr",
        f"repaired: segments/{path.name}: removed, no row is left in it",
        "repaired: rows that it lacked taken from packs: 40",
    ]
    for place, prompt in enumerate("ab"):
        rows = Shelf.at(project.shelf(prompt)).read(project.ids)
        np.testing.assert_array_equal(rows, project.vectors[:, place])
    assert agiqa("cache", "verify").exit_code == 0


@pytest.mark.parametrize("source", ["runs/mine/grouped", "another ledger"])
def test_a_lost_fingerprint_is_known_elsewhere(
    project: Project, source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    shelf = project.shelf("a")
    if source == "another ledger":
        shutil.rmtree("runs")
        source = str(tmp_path / "user/agiqa/ledger" / shelf.name)
        shutil.copytree(shelf, source)
    shutil.rmtree("cache")
    whole = (shelf / "fingerprint.json").read_bytes()
    (shelf / "fingerprint.json").unlink()
    listed = agiqa("cache", "ls", "--json").stdout
    assert "found no fingerprint.json in it, which says what its vectors are" in listed
    result = agiqa("cache", "verify", "--repair")
    assert result.exit_code == 0, result.output
    assert f"repaired: fingerprint.json: written anew, out of {source}" in result.stdout
    assert (shelf / "fingerprint.json").read_bytes() == whole


def test_a_lost_fingerprint_is_that_of_the_settings(
    project: Project, tmp_path: Path, build_vision: Callable[..., Path]
) -> None:
    model = build_vision(tmp_path / "tower")
    setting = f"visual.model={model}"
    layers = "visual.layers=[1]"
    (vector, *_) = VisionExtractor(load(None, [setting, layers]).visual).vectors
    with Shelf.open(project.ledger, vector.fingerprint, vector.width).writer() as writer:
        writer.add(project.ids, np.ones((40, vector.width), np.float16))
    (path,) = project.ledger.glob("vision-*/fingerprint.json")
    whole = path.read_bytes()
    path.unlink()
    result = agiqa("cache", "verify", "--repair", path.parent, "--set", setting, "--set", layers)
    assert "repaired: fingerprint.json: written anew, out of the settings" in result.stdout
    assert path.read_bytes() == whole


def test_a_fingerprint_that_nobody_has_leaves_rows_unusable(project: Project) -> None:
    shutil.rmtree("cache")
    shutil.rmtree("runs")
    shelf = project.shelf("a")
    (shelf / "fingerprint.json").unlink()
    result = agiqa("cache", "verify", "--repair", shelf)
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert f"a fingerprint whose digest begins with {shelf.name[-16:]} in a pack, a run" in text
    assert "its 40 rows (" in text
    assert "or delete the folder to free them" in text
    other = Path("other")
    project.ledger.rename(other)
    merged = agiqa("cache", "merge", other)
    assert merged.exit_code == 1
    assert f"{shelf.name}: nothing taken: {other / shelf.name}: expected a shelf" in merged.stderr


def test_a_wrong_width_is_mended_and_costs_no_row(project: Project) -> None:
    shutil.rmtree("cache")
    path = project.shelf("a") / "fingerprint.json"
    whole = path.read_text()
    path.write_text(whole.replace('"width": 16', '"width": 17'))
    result = agiqa("cache", "verify", "--repair", path.parent)
    assert result.exit_code == 0, result.output
    assert "repaired: fingerprint.json: written anew, out of itself" in result.stdout
    assert "says width 17, float16, but the vectors are of width 16" in result.stdout
    assert "dropped" not in result.stdout
    assert path.read_text() == whole


def test_a_shelf_of_a_newer_layout_is_left_alone(project: Project) -> None:
    path = project.shelf("a") / "fingerprint.json"
    newer = path.read_text().replace('"layout": 2', '"layout": 3')
    path.write_text(newer)
    result = agiqa("cache", "verify", "--repair", path.parent)
    assert result.exit_code == 1
    assert "expected layout 2, found 3; upgrade agiqa" in " ".join(result.stdout.split())
    assert path.read_text() == newer


def change_row(pack: Path) -> None:
    """As the library itself does, so that the chunk's own checksum fits."""
    if pack.is_dir():
        zarr.open_array(pack / "vectors", mode="r+")[20, 0, 0] = 7
        return
    with h5py.File(pack, "r+") as file:
        file["vectors"][20, 0, 0] = 7


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_two_layers_with_different_damage_mend_each_other(project: Project, suffix: str) -> None:
    project.pack.rename(Path("elsewhere.zarr"))
    pack = project.pack.with_suffix(suffix)
    project.write_pack(pack)
    flip(project.segment("a"), *range(-1, -161, -32))
    change_row(pack)
    result = agiqa("cache", "verify", "--repair")
    assert result.exit_code == 0, result.output
    assert "rows that it lacked taken from packs: 5" in result.stdout
    assert "40 rows packed again" in result.stdout
    np.testing.assert_array_equal(read_pack(pack).vectors, project.vectors)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_pack_is_mended_from_the_ledger(project: Project, suffix: str) -> None:
    pack = project.pack.with_suffix(suffix)
    project.write_pack(pack)
    whole = files(pack)
    change_row(pack)
    if pack.is_dir():
        flip(pack / "image_id" / "c.0.0", 10)  # so that the images are the table's
    result = agiqa("cache", "verify", "--repair", pack)
    assert result.exit_code == 0, result.output
    assert "  repaired: 40 rows packed again from the ledger\n" in result.stdout
    assert files(pack) == whole


def test_what_the_ledger_lacks_is_for_extract(project: Project) -> None:
    project.lose("b", 3)
    flip(project.pack / "vectors" / "c.0.0.0", 1000)
    result = agiqa("cache", "verify", "--repair")
    assert result.exit_code == 1
    assert "expected rows for 40 images, found 37" in result.stdout
    assert "run `agiqa extract`" in " ".join(result.stdout.split())
    assert "1 store still bad" in result.stdout
    flip(project.pack / "vectors" / "c.0.0.0", 1000)
    assert len(read_pack(project.pack).image_ids) == 40  # it was left as it was


def test_a_strangers_folder_and_an_empty_store(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.ledger / "notes").mkdir()
    result = agiqa("cache", "verify", "--repair")
    assert result.exit_code == 0, result.output
    assert "other  notes" in result.stdout
    monkeypatch.setenv("AGIQA_STORE", "nowhere")
    result = agiqa("cache", "verify", "--cache", "nothing")
    assert result.exit_code == 0, result.output
    assert "checked 0 shelves and 0 packs" in result.stdout
    assert not Path("nowhere").exists()


def test_what_cannot_be_read_now_is_not_dropped(project: Project) -> None:
    chunk = project.segment("a")
    chunk.rename(chunk.with_name("aside"))
    chunk.symlink_to(chunk.name)  # which is not followed
    result = agiqa("cache", "verify", "--repair")
    assert result.exit_code == 1
    assert "expected a file, found a link, which agiqa does not open" in result.stdout
    assert "checked 2 shelves and 1 pack: 80 rows" in result.stdout  # the others were
    chunk.with_name("aside").replace(chunk)
    assert len(Shelf.at(project.shelf("a")).ids()) == 40
    assert agiqa("cache", "verify").exit_code == 0
