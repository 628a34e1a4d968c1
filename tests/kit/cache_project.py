"""A project as users have it: images, their table, a ledger, packs made from it, a run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

from agiqa.cli import main
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


def write_run(run: Path, dataset: str, prompts: Sequence[str]) -> None:
    run.mkdir(parents=True)
    prints = [fingerprint(prompt) for prompt in prompts]
    stores = {"semantic": {"extractor": "nano", "names": prompts, "fingerprints": prints}}
    record = {"format": "agiqa-run", "dataset": dataset, "stores": stores}
    (run / "provenance.json").write_text(json.dumps(record))


def agiqa(*arguments: str | Path) -> Result:
    wide = {"COLUMNS": "400"}  # nothing is wrapped, however long the paths here are
    return CliRunner(env=wide).invoke(main, [str(argument) for argument in arguments])
