"""Splits as files: who trains, who selects, who is tested, by a named protocol, with its leaks."""

from agiqa.data.splits.files import (
    protocols_there,
    read_protocol,
    read_splits,
    side_rows,
    split_digest,
    write_splits,
)
from agiqa.data.splits.importing import import_splits
from agiqa.data.splits.leaks import Leak, leaks, percent, shared
from agiqa.data.splits.preparing import (
    make_all_splits,
    small_test_sides,
    write_all_splits,
    write_imported,
)
from agiqa.data.splits.protocols import default_protocol, make_splits
from agiqa.data.splits.split_rules import SIDES, has_official

__all__ = [
    "SIDES",
    "Leak",
    "default_protocol",
    "has_official",
    "import_splits",
    "leaks",
    "make_all_splits",
    "make_splits",
    "percent",
    "protocols_there",
    "read_protocol",
    "read_splits",
    "shared",
    "side_rows",
    "small_test_sides",
    "split_digest",
    "write_all_splits",
    "write_imported",
    "write_splits",
]
