"""Evaluated runs as files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.run_files import STORES, metrics_of


@pytest.fixture
def write_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a run below `runs/`, with these results by the folder inside the run."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, inside: dict[str, Any] | None = None, **provenance: Any) -> Path:
        folder = Path("runs") / name
        folder.mkdir(parents=True)
        record = {"preset": "light", "protocol": "grouped", "stores": STORES} | provenance
        (folder / "provenance.json").write_text(json.dumps(record))
        for place, metrics in ({"": metrics_of()} if inside is None else inside).items():
            (folder / place).mkdir(parents=True, exist_ok=True)
            (folder / place / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return write
