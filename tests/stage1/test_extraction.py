"""Only what is missing is computed, a kill loses nothing, and the result is the same to the bit."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agiqa.datasets import folder
from agiqa.datasets.table import ImagesTable, write_table
from agiqa.errors import AgiqaError
from agiqa.extraction import extract
from agiqa.extractors import LMMExtractor, VisionExtractor
from agiqa.feature_store import read_pack
from agiqa.params import Semantic, Visual


class Counting(LMMExtractor):
    """The real extractor, which keeps count of what it was asked for."""

    def __init__(self, settings: Semantic) -> None:
        super().__init__(settings)
        self.asked: list[tuple[int, ...]] = []

    def extract(self, pixels: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
        self.asked.append(tuple(wanted))
        return super().extract(pixels, wanted)


def test_only_missing_rows_and_vectors_are_computed(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    ledger, store = tmp_path / "ledger", tmp_path / "tiny.zarr"
    half = dataclasses.replace(table, frame=table.frame.iloc[:5])
    assert extract(half, LMMExtractor(semantic), store, ledger=ledger).computed == 10
    rest = extract(table, LMMExtractor(semantic), store, ledger=ledger)
    assert (rest.cached, rest.computed, rest.images) == (10, 10, 10)
    again = Counting(semantic)
    assert extract(table, again, store, ledger=ledger).computed == 0
    assert again.asked == []
    text = (Path(__file__).parents[2] / "prompts" / "ma_agiqa.yaml").read_text()
    (tmp_path / "set.yaml").write_text(text + "  anatomy: Are the hands right?\n")
    more = Counting(dataclasses.replace(semantic, prompts=str(tmp_path / "set.yaml")))
    result = extract(table, more, store, ledger=ledger)
    assert (result.cached, result.computed, result.vectors) == (20, 10, 3)
    assert set(more.asked) == {(2,)}


def test_the_order_of_computing_does_not_show(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    """Piece by piece or at once, through half-empty batches: the same pack, byte for byte."""
    for size in (3, 7):
        part = dataclasses.replace(table, frame=table.frame.iloc[:size])
        extract(part, LMMExtractor(semantic), tmp_path / "part.zarr", ledger=tmp_path / "a")
    extract(table, LMMExtractor(semantic), tmp_path / "a.zarr", ledger=tmp_path / "a")
    extract(table, LMMExtractor(semantic), tmp_path / "b.zarr", ledger=tmp_path / "b")
    ours, theirs = ({p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file()}
                    for r in (tmp_path / "a.zarr", tmp_path / "b.zarr"))  # fmt: skip
    assert ours == theirs


def test_identical_files_are_computed_once(
    table: ImagesTable, visual: Visual, tmp_path: Path
) -> None:
    (table.root / "copy.png").write_bytes((table.root / "0.png").read_bytes())
    doubled = folder.prepare(table.root, "eleven")
    result = extract(doubled, VisionExtractor(visual), tmp_path / "v.h5", ledger=tmp_path / "l")
    assert (len(doubled.frame), result.images, result.computed) == (11, 10, 20)
    rows = read_pack(tmp_path / "v.h5").rows(list(doubled.frame["image_id"]))
    copies = doubled.frame["path"].isin(["0.png", "copy.png"]).to_numpy()
    first, second = rows[copies]
    assert np.array_equal(first, second)


def test_images_changed_since_prepare_stop_everything(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    (table.root / "3.png").write_bytes((table.root / "4.png").read_bytes())
    (table.root / "5.png").unlink()
    extractor = Counting(semantic)
    with pytest.raises(AgiqaError, match=r"2 images of 'ten' are not as they were at prepare"):
        extract(table, extractor, tmp_path / "s.zarr", ledger=tmp_path / "l")
    assert extractor.asked == []
    result = extract(table, extractor, tmp_path / "s.zarr", ledger=tmp_path / "l", skip_bad=True)
    assert result.images == 8
    assert sorted(Path(bad.path).name for bad in result.bad) == ["3.png", "5.png"]


def test_damaged_rows_are_computed_again(
    table: ImagesTable, semantic: Semantic, tmp_path: Path
) -> None:
    ledger, store = tmp_path / "ledger", tmp_path / "tiny.zarr"
    extract(table, LMMExtractor(semantic), store, ledger=ledger)
    good = read_pack(store).vectors
    chunk = next(path for path in sorted(ledger.rglob("c.*")) if path.is_file())
    data = bytearray(chunk.read_bytes())
    data[10] ^= 1
    chunk.write_bytes(data)
    again = extract(table, LMMExtractor(semantic), store, ledger=ledger)
    assert again.computed == 10  # one vector's only chunk
    assert np.array_equal(read_pack(store).vectors, good)


WORKER = """
import sys, time
from pathlib import Path
from agiqa.datasets.table import read_table
from agiqa.extraction import extract
from agiqa.extractors import LMMExtractor
from agiqa.params import Semantic

class Slow(LMMExtractor):
    def extract(self, pixels, wanted):
        time.sleep(float(sys.argv[3]))
        rows = super().extract(pixels, wanted)
        print("batch", flush=True)
        return rows

import agiqa.feature_store.shelf_writer as writer
writer.FLUSH_SECONDS = 0.0
folder = Path(sys.argv[1])
settings = Semantic(name="tiny", model=sys.argv[2], batch_size=4)
import agiqa.feature_store.ledger as ledger
result = extract(read_table(folder), Slow(settings), folder / "tiny.zarr", ledger=folder / "ledger")
print("computed", result.computed, flush=True)
"""


def test_kill_and_resume(table: ImagesTable, semantic: Semantic, tmp_path: Path) -> None:
    """SIGKILL in the middle: acknowledged rows are not computed again, the pack is the same."""
    data = tmp_path / "data"
    write_table(table, data)

    def start(pause: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(data), semantic.model, str(pause)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy())

    killed = start(6.0)  # longer than the 5 s between flushes: every batch is acknowledged
    assert killed.stdout is not None
    for _ in range(2):
        assert killed.stdout.readline() == "batch\n"
    time.sleep(1.5)  # the second batch is added and flushed
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    resumed = start(0.0)
    out, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0
    assert out.count("batch") == 1
    assert "computed 4" in out  # of 20: 16 were safe
    extract(table, LMMExtractor(semantic), tmp_path / "u.zarr", ledger=tmp_path / "undisturbed")
    ours, theirs = read_pack(data / "tiny.zarr"), read_pack(tmp_path / "u.zarr")
    assert ours.image_ids == theirs.image_ids
    assert np.array_equal(ours.vectors, theirs.vectors)
