"""Splits as files: who trains, who selects, who is tested, by a named protocol, with its leaks."""

from agiqa.data.splits.files import (
    protocol_name,
    protocols_there,
    read_protocol,
    read_splits,
    side_rows,
    split_digest,
    write_splits,
)
from agiqa.data.splits.importing import Imported, import_splits
from agiqa.data.splits.leaks import Leak, leaks, percent, shared, write_leaks
from agiqa.data.splits.preparing import (
    count_leaks,
    make_all_splits,
    small_test_sides,
    write_all_splits,
    write_imported,
)
from agiqa.data.splits.protocols import PROTOCOLS, RATIO, default_protocol, make_splits
from agiqa.data.splits.split_rules import COLUMNS, SIDES, has_official, with_scores

__all__ = [
    "COLUMNS",
    "PROTOCOLS",
    "RATIO",
    "SIDES",
    "Imported",
    "Leak",
    "count_leaks",
    "default_protocol",
    "has_official",
    "import_splits",
    "leaks",
    "make_all_splits",
    "make_splits",
    "percent",
    "protocol_name",
    "protocols_there",
    "read_protocol",
    "read_splits",
    "shared",
    "side_rows",
    "small_test_sides",
    "split_digest",
    "with_scores",
    "write_all_splits",
    "write_imported",
    "write_leaks",
    "write_splits",
]
