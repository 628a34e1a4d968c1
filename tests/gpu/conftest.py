"""The scripts of benchmarks/gpu, which import each other by name and are no part of the package."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks/gpu"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import `benchmarks/gpu/NAME.py`."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module
