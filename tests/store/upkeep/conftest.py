"""A project as users have it (kit/cache_project.py), made anew for each test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.data.datasets import folder
from agiqa.data.datasets.table import write_table
from agiqa.store import Shelf
from kit.cache_project import IMAGES, WIDTH, Project, fingerprint, write_run


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
