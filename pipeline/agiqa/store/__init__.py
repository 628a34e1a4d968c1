"""The feature store: a ledger that never loses a computed row, and packs that DVC can move.

`extract` (stage 1) writes; `fit`, `evaluate` and `score` (stage 2) read packs.

    ledger/     shelves of rows by fingerprint, as immutable segments (shelf.py)
    packs/      a data set's vectors as Zarr or HDF5 (pack.py)
    shared/     both at URLs
    upkeep/     behind `agiqa cache`
    rows.py, durable.py, fingerprint.py, own_files.py, row_ids.py serve all of them;
    checks.py looks at all of a shelf or a pack, and mends shelves;
    unpacking.py takes rows from packs back into the ledger
"""

from agiqa.store.fingerprint import (
    ABSENT,
    Fingerprint,
    FingerprintMismatchError,
    difference,
    digest,
    require_same,
)
from agiqa.store.ledger.copying import add_shelf, require_fits
from agiqa.store.ledger.description import DESCRIPTION
from agiqa.store.ledger.lock import LockedError
from agiqa.store.ledger.roots import default_root
from agiqa.store.ledger.shelf import Shelf, ShelfWriter
from agiqa.store.packs.converting import convert_pack
from agiqa.store.packs.pack import (
    ANSWERS,
    FORMATS,
    IMPORTED,
    TAIL,
    TOKENS,
    FeatureStore,
    is_free,
    open_pack,
    pack_beside,
    read_pack,
    read_pack_metadata,
    require_replaceable,
    write_pack,
)
from agiqa.store.packs.pack_layout import PackError, row_ids_digest
from agiqa.store.rows import DamagedRowsError
from agiqa.store.shared.fetch import local_copy
from agiqa.store.shared.remote import RemoteError
from agiqa.store.shared.sharing import pull, pushing, shared_shelves
from agiqa.store.unpacking import add_pack

__all__ = [
    "ABSENT",
    "ANSWERS",
    "DESCRIPTION",
    "FORMATS",
    "IMPORTED",
    "TAIL",
    "TOKENS",
    "DamagedRowsError",
    "FeatureStore",
    "Fingerprint",
    "FingerprintMismatchError",
    "LockedError",
    "PackError",
    "RemoteError",
    "Shelf",
    "ShelfWriter",
    "add_pack",
    "add_shelf",
    "convert_pack",
    "default_root",
    "difference",
    "digest",
    "is_free",
    "local_copy",
    "open_pack",
    "pack_beside",
    "pull",
    "pushing",
    "read_pack",
    "read_pack_metadata",
    "require_fits",
    "require_replaceable",
    "require_same",
    "row_ids_digest",
    "shared_shelves",
    "write_pack",
]
