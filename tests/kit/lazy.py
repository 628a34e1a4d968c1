"""Modules that bring transformers' model code, loaded when a test first asks them for something.

Collecting the tests imports every test module, and that model code took a third of the time.
"""

import importlib
from typing import Any


class Lazily:
    """Stands for a module, and imports it when an attribute is asked for, but by pytest."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_", "pytest")):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.module), name)
