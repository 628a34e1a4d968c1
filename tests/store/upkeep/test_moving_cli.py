"""`agiqa cache merge`, `convert`, `export` and `import-pt` as a user has them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from agiqa.data.datasets.table import read_table
from agiqa.store import Shelf, read_pack, write_pack
from kit.command import agiqa, one_line

IMAGES = 40
FAST = ["--target=mos", "--set=fit.components=8", "--set=fit.semantic_components=4"]
FAST += ["--set=fit.epochs=6"]


@pytest.fixture
def workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_images: Callable[..., Path]
) -> Path:
    """A prepared data set `mine` with visual vectors, and a ledger of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    names = [f"{row:02d}.png" for row in range(IMAGES)]
    write_images(*names)
    mos = np.random.default_rng(0).uniform(1, 5, IMAGES)
    labels = pd.DataFrame(
        {"file": names, "mos": mos, "prompt": [f"{r // 3}" for r in range(IMAGES)]}
    )
    labels.to_csv("images/labels.csv", index=False)
    agiqa("prepare", "mine", "--from", "images/labels.csv", "--image-column", "file",
            "--score-column", "mos", "--prompt-column", "prompt",
            "--set", "splits.count=3")  # fmt: skip
    pack("nano-vision", ["layer1"], 10)
    return tmp_path


def pack(name: str, vectors: list[str], width: int, suffix: str = ".zarr", seed: int = 0) -> Path:
    """Noise as vectors of `mine`."""
    ids = list(read_table(Path("cache/mine")).frame["image_id"])
    prints = [{"extractor": name, "vector": vector} for vector in vectors]
    rows = np.random.default_rng(seed).normal(size=(len(ids), len(vectors), width))
    path = Path("cache/mine") / f"{name}{suffix}"
    write_pack(path, name, vectors, prints, ids, rows.astype(np.float16))
    return path


def reference_features(folder: Path) -> None:
    """What the reference code saves, with the MOS in it."""
    folder.mkdir()
    mos = torch.tensor(read_table(Path("cache/mine")).frame["mos"].to_numpy())
    torch.manual_seed(0)
    for vector in ("semantic_content", "coherence"):
        batch = (torch.randn(IMAGES, 1, 24) + mos[:, None, None]).half()
        for row, tensor in enumerate(batch):
            torch.save(tensor, folder / f"{row:02d}_{vector}.pt")


def test_fit_and_evaluate_take_imported_features(workspace: Path) -> None:
    reference_features(workspace / "pt")
    shown = agiqa("cache", "import-pt", "pt", "--dataset", "mine", "--model", "mplug-owl2").stdout
    assert "agiqa fit mine --set semantic.name=reference" in shown
    outside = agiqa("cache", "import-pt", "pt", "--dataset", "mine", "--name", "../x", status=2)
    assert "plain name, found '../x'" in outside.stderr
    (workspace / "pt/07_coherence.pt").unlink()
    one_line(agiqa("cache", "import-pt", "pt", "--dataset", "mine", "--name", "part", status=1),
             "1 of 40 images", "07.png has no *_coherence.pt", "--skip-missing")  # fmt: skip
    words = ["cache", "import-pt", "pt", "--dataset", "mine", "--name", "part", "--format", "h5"]
    part = agiqa(*words, "--model", "mplug-owl2", "--skip-missing", "--json")
    found = json.loads(part.stdout)
    assert (found["images"], found["unused_files"]) == (IMAGES - 1, 1)
    assert part.stderr.count("Skipped 07.png") == 1
    fit = ["fit", "mine", "--set", "semantic.name=part", "--set", "semantic.format=h5"]
    agiqa(*fit, "-o", "run", *FAST)
    metrics = json.loads(agiqa("evaluate", "run", "--json").stdout)
    assert metrics["models"]["semantic"]["srcc"]["median"] > 0.7
    about = json.loads((workspace / "run/provenance.json").read_text())
    assert about["images"] == IMAGES - 1
    made_by = about["stores"]["semantic"]["fingerprints"][0]
    assert (made_by["extractor"], made_by["source"]) == ("reference-pt", "unknown")
    one_line(agiqa("score", "images/00.png", "--run", "run", status=1), "imported", "mplug-owl2")


def test_merge_counts_and_says_what_it_leaves_out(workspace: Path) -> None:
    good, bad = pack("good", ["q"], 4), pack("bad", ["q", "r"], 4, ".h5")
    found = json.loads(agiqa("cache", "merge", good, bad, "--json").stdout)
    assert [each["added"] for each in found["merged"]] == [IMAGES] * 3
    assert found["ledger"] == str(workspace / "ledger")
    assert (
        f"{good} q: {IMAGES} rows, 0 added, {IMAGES} there already"
        in agiqa("cache", "merge", good).stdout
    )
    pack("good", ["q"], 4, seed=1)
    assert (
        f"0 there already, {IMAGES} there with other numbers and kept"
        in agiqa("cache", "merge", good).stdout
    )
    other = pack("other", ["q"], 4)
    (other / "vectors/c.0.0.0").unlink()
    result = agiqa("cache", "merge", other, bad, status=1)
    one_line(result, f"{IMAGES} damaged rows and 0 whole vectors were left out")
    assert result.stderr.count(f"Damaged in {other} q: ") == IMAGES
    assert f"{bad} r: {IMAGES} rows, 0 added, {IMAGES} there already" in result.stdout
    made_by = {"extractor": "other", "vector": "q"}
    assert not Shelf.open(workspace / "ledger", made_by, 4).ids()


def test_convert_and_export(workspace: Path) -> None:
    source = pack("good", ["q", "r"], 4)
    assert agiqa("cache", "convert", source, "good.h5").stdout == "good.h5: written\n"
    assert agiqa("cache", "convert", source, "good.h5").stdout.startswith(
        "good.h5: already the same"
    )
    assert np.array_equal(read_pack(Path("good.h5")).vectors, read_pack(source).vectors)
    one_line(
        agiqa("cache", "convert", "cache/mine/nano-vision.zarr", "good.h5", status=1), "--force"
    )
    agiqa("cache", "convert", "--force", "cache/mine/nano-vision.zarr", "good.h5")
    shown = json.loads(agiqa("cache", "export", source, "-o", "good.npz", "--json").stdout)
    assert shown["arrays"] == ["vectors/q", "vectors/r", "image_id", "path", "metadata"]
    with np.load("good.npz") as file:
        assert np.array_equal(file["vectors/r"], read_pack(source).vectors[:, 1])
        assert file["path"][0] == "00.png"
    one_line(agiqa("cache", "export", source, "-o", "good.npz", status=1), "good.npz", "--force")
    one_line(
        agiqa("cache", "export", "good.npz", "-o", "b.npz", status=1),
        "expected a pack named *.zarr",
    )
