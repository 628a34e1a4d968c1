"""The scripts of docs/making, which are no part of the package."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def load_script(name: str) -> ModuleType:
    """Import `docs/making/NAME.py`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/making/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
