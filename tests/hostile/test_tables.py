"""Tables of labels and images tables that others made: bounded, in one line, nothing outside."""

import gzip
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

HEADER = "image_id,path,prompt,group,generator,quality\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one image, in which commands run."""
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.fixture
def write_table(here: Path) -> Callable[..., None]:
    """Writes an images table with changed fields, its digest right."""

    def write(path: str = "0.png", rows: str = "", root: Any = "images", **changed: Any) -> None:
        cache = here / "cache" / "mine"
        cache.mkdir(parents=True, exist_ok=True)
        csv = HEADER + (rows or f"{'0' * 64},{path},p,p,g,1\n")
        about = {
            "layout": 4, "name": "mine", "images": 1, "synthetic": False, "licence": "",
            "source": "", "skipped": [],
            "images_csv_sha256": hashlib.sha256(csv.encode()).hexdigest(),
            "targets": [{"name": "quality", "low": 1, "high": 1}],
        }  # fmt: skip
        (cache / "images.csv").write_text(csv, "utf-8")
        (cache / "dataset.json").write_text(json.dumps(about | changed), "utf-8")
        (cache / "root.json").write_text(json.dumps({"root": root}), "utf-8")

    return write


@pytest.mark.parametrize("kind", ["columns", "line", "gzip", "deep", "pipe", "device", "folder"])
def test_labels(here: Path, attack: Callable, kind: str) -> None:
    path = here / "labels.csv"
    if kind == "columns":
        path.write_text(",".join(f"c{n}" for n in range(1_000_000)), "utf-8")
    elif kind == "line":
        with path.open("wb") as file:
            file.truncate(1 << 30)
    elif kind == "gzip":
        path = here / "labels.csv.gz"
        path.write_bytes(gzip.compress(b"file,mos\n" + b"a.png,1\n" * 1_000_000))
    elif kind == "deep":
        path.write_text('file,mos\n"' + "a\n" * 2_000_000, "utf-8")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    arguments = ["--kind", "csv", "--image-column", "file", "--score-column", "mos"]
    outcome = attack("prepare", "mine", "--from", path, *arguments, seconds=20, megabytes=200)
    assert "labels.csv" in outcome.error
    assert not (here / "cache").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "labels.xlsx",
            b"PK\3\4",
            "a folder of images, or a table whose name ends in .csv",
        ),
        ("labels.csv.gz", b"\x1f\x8b", "expected a folder of images, or a table"),
        ("labels.txt", b"a,b", "expected a folder of images, or a table"),
    ],
)
def test_other_files_than_tables(
    here: Path, attack: Callable, name: str, content: bytes, message: str
) -> None:
    (here / name).write_bytes(content)
    assert message in attack("prepare", "mine", "--from", name).error


@pytest.mark.parametrize(
    "name", ["../up", "a.b", "a b", "a/b", "${datasets}", "-x", "a;b", "..", "nul\n", "x" * 300]
)
def test_names_that_are_no_folders_or_stages(here: Path, attack: Callable, name: str) -> None:
    outcome = attack("prepare", "--from", here, "--", name)
    assert "NAME: expected a plain name, found " in outcome.error
    told = attack("datasets", "--set", f"datasets=['{name}']").error
    assert "'datasets': expected a plain name" in told


def test_names_that_differ_in_case(here: Path, attack: Callable) -> None:
    (here / "cache" / "Mine").mkdir(parents=True)
    assert "differs from 'mine' in case alone" in attack("prepare", "mine", "--from", here).error


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"path": "../secret.png"}, "not inside the data folder"),
        ({"path": "/etc/passwd"}, "not inside the data folder"),
        ({"path": '"a\0.png"'}, "holds a zero byte"),
        ({"rows": "0,a.png,p,p,g\n"}, "line 2 has 5 cells, the header 6"),
        ({"rows": "0,a.png,p,p,g,1\n" * 2}, "listed more than once"),
        ({"root": "../.."}, "root.json: damaged"),
        ({"root": 3}, "root.json: damaged (root is 3, not text)"),
        ({"name": 3}, "dataset.json: damaged (name is 3, not text)"),
        ({"layout": [1]}, "layout [1] is not the one"),
        ({"synthetic": "yes"}, "damaged (synthetic is 'yes')"),
        ({"targets": 3}, "dataset.json: damaged"),
        ({"targets": [3]}, "dataset.json: damaged"),
        ({"targets": [{"name": "quality"}]}, "dataset.json: damaged"),
        ({"targets": [{"name": "../x", "low": 1, "high": 1}]}, "expected the name of a score"),
        ({"targets": [{"name": "quality", "low": "1", "high": 1}]}, "dataset.json: damaged"),
        ({"targets": [{"name": "quality", "low": 1, "high": 1e999}]}, "not all numbers"),
        ({"targets": [{"name": "path", "low": 1, "high": 1}]}, "two columns of one name"),
        ({"targets": [{"name": "quality", "low": 1, "high": 1}] * 2}, "two columns of one name"),
        ({"skipped": [{"path": 1, "reason": ""}]}, "damaged (path is 1, not text)"),
        ({"skipped": {"path": "a"}}, "dataset.json: damaged"),
        ({"images_csv_sha256": None}, "images_csv_sha256 is None, not text"),
    ],
)
def test_images_tables(
    here: Path, attack: Callable, write_table: Callable, changed: dict[str, Any], message: str
) -> None:
    (here.parent / "secret.png").write_bytes((here / "0.png").read_bytes())
    write_table(**({"root": str(here)} | changed))
    outcome = attack("extract", "mine", "--only", "visual", "--set", "visual.model=none")
    assert message in outcome.error
    assert not [path for path in outcome.opened if path.endswith(("secret.png", "passwd"))]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"layout": 4, "layout": 1}', '{"a":' * 5000, "\xff"]
)
def test_dataset_json(here: Path, attack: Callable, write_table: Callable, text: str) -> None:
    write_table()
    (here / "cache" / "mine" / "dataset.json").write_bytes(text.encode("latin-1"))
    assert "dataset.json: damaged (" in attack("splits", "show", "mine").error


@pytest.mark.parametrize("kind", ["laughs", "deep", "keys", "large", "pipe", "device", "tag"])
def test_settings(here: Path, attack: Callable, kind: str) -> None:
    """Prompt sets are read by the same reader; what multiplies would do so when it is printed."""
    path = here / "made.yaml"
    if kind == "laughs":
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
        path.write_text("\n".join([*lines, "datasets: *a11"]))
    elif kind == "deep":
        path.write_text("datasets: " + "[" * 100_000)
    elif kind == "keys":
        path.write_text("fit:\n  lr: 1\n  lr: 2\n")
    elif kind == "large":
        path.write_text("a: 1\n" * 10_000_000)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("a: !!python/object/apply:os.system [touch the-code-has-run]\n")
    told = attack("datasets", "--params", path, seconds=20, megabytes=100).error
    assert f"{path}: not valid YAML: " in told
    if kind == "keys":
        assert "line 3: the key 'lr' stands twice, first in line 2" in told


def test_vectors_of_the_reference_code(here: Path, attack: Callable, write_table: Callable) -> None:
    """Files of torch.save whose numbers unpack to 300 MB each."""
    import torch

    write_table()
    (here / "made").mkdir()
    for vector in ("semantic_content", "coherence"):
        path = here / "made" / f"0_{vector}.pt"
        torch.save(torch.zeros(1), path)
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in records.items():
                large = bytes(300 << 20) if name.endswith("/data/0") else content
                archive.writestr(name, large)
    told = attack("cache", "import-pt", "made", "--dataset", "mine", seconds=20, megabytes=100)
    assert "compressed records, which torch.save never writes" in told.error
