"""A project as users have it: images, their table, a ledger, packs made from it, a run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from agiqa.cli import main
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import write_table
from agiqa.store import Shelf, write_pack

IMAGES, WIDTH = 40, 16


def fingerprint(prompt: str, **changed: object) -> dict[str, object]:
    return {
        "extractor": "lmm",
        "prompt": {"text": prompt, "pooling": "mean"},
        "libraries": {"torch": "2.13.0"},
    } | changed


@dataclass(frozen=True)
class Project:
    """Its folder is the working folder, its ledger $AGIQA_STORE."""

    ledger: Path
    ids: tuple[str, ...]
    vectors: np.ndarray  # (IMAGES, 2, WIDTH)

    @property
    def pack(self) -> Path:
        return Path("cache/mine/nano.zarr")

    def shelf(self, prompt: str) -> Path:
        return Shelf.open(self.ledger, fingerprint(prompt), WIDTH).folder

    def segment(self, prompt: str) -> Path:
        (path,) = (self.shelf(prompt) / "segments").iterdir()
        return path

    def lose(self, prompt: str, count: int) -> None:
        """Take the first rows out of a shelf, as a repair would that cannot save them."""
        shelf, old = Shelf.at(self.shelf(prompt)), self.segment(prompt)
        left = self.ids[count:]
        rows = shelf.read(left)
        old.unlink()
        with shelf.writer() as writer:
            writer.add(left, rows)

    def write_pack(self, path: Path, prompts: Sequence[str] = ("a", "b")) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        prints = [fingerprint(prompt) for prompt in prompts]
        write_pack(path, "nano", prompts, prints, self.ids, self.vectors[:, : len(prompts)])


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_images: Callable[..., Path]
) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    table = folder.prepare(write_images(*[f"{row:02d}.png" for row in range(IMAGES)]), "mine")
    write_table(table, Path("cache/mine"))
    ids = tuple(table.frame["image_id"])
    vectors = np.random.default_rng(0).standard_normal((IMAGES, 2, WIDTH)).astype(np.float16)
    made = Project(tmp_path / "ledger", ids, vectors)
    for place, prompt in enumerate("ab"):
        with Shelf.open(made.ledger, fingerprint(prompt), WIDTH).writer() as writer:
            writer.add(ids, vectors[:, place])
    made.write_pack(made.pack)
    write_run(Path("runs/mine/grouped"), "mine", ["a", "b"])
    return made


def write_run(run: Path, dataset: str, prompts: Sequence[str]) -> None:
    run.mkdir(parents=True)
    prints = [fingerprint(prompt) for prompt in prompts]
    stores = {"semantic": {"extractor": "nano", "names": prompts, "fingerprints": prints}}
    record = {"format": "agiqa-run", "dataset": dataset, "stores": stores}
    (run / "provenance.json").write_text(json.dumps(record))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def agiqa(*arguments: str | Path) -> Result:
    wide = {"COLUMNS": "400"}  # nothing is wrapped, however long the paths here are
    return CliRunner(env=wide).invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(name="flip", scope="session")
def _flip() -> Callable[[Path, int], None]:
    return flip


@pytest.fixture(name="agiqa", scope="session")
def _agiqa() -> Callable[..., Result]:
    return agiqa


@pytest.fixture(name="write_run", scope="session")
def _write_run() -> Callable[..., None]:
    return write_run


@pytest.fixture(name="fingerprint", scope="session")
def _fingerprint() -> Callable[..., dict[str, object]]:
    return fingerprint
