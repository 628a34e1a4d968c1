"""Splits as files: who trains, who selects, who is tested, by a named protocol, with its leaks."""

from agiqa.data.splits.files import read_protocol
from agiqa.data.splits.importing import import_splits
from agiqa.data.splits.protocols import make_splits

__all__ = ["import_splits", "make_splits", "read_protocol"]
