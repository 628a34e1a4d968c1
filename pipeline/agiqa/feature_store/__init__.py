"""The feature store: a ledger that never loses a computed row, and packs that DVC can move.

`extract` (stage 1) writes; `fit`, `evaluate` and `score` (stage 2) read packs. See ledger.py and
pack.py; the other modules serve these two.
"""

from agiqa.feature_store.chunks import DamagedRowsError
from agiqa.feature_store.fetch import at_hand, copies_folder, fetch
from agiqa.feature_store.fingerprint import (
    ABSENT,
    Fingerprint,
    FingerprintMismatchError,
    difference,
    digest,
    require_same,
)
from agiqa.feature_store.ledger import Shelf, default_root
from agiqa.feature_store.lock import LockedError
from agiqa.feature_store.pack import ANSWERS, FeatureStore, pack_beside, read_pack, write_pack
from agiqa.feature_store.pack_layout import PackError
from agiqa.feature_store.remote import RemoteError
from agiqa.feature_store.sharing import pull, pushing, shared_shelves
from agiqa.feature_store.shelf_writer import ShelfWriter

__all__ = [
    "ABSENT",
    "ANSWERS",
    "DamagedRowsError",
    "FeatureStore",
    "Fingerprint",
    "FingerprintMismatchError",
    "LockedError",
    "PackError",
    "RemoteError",
    "Shelf",
    "ShelfWriter",
    "at_hand",
    "copies_folder",
    "default_root",
    "difference",
    "digest",
    "fetch",
    "pack_beside",
    "pull",
    "pushing",
    "read_pack",
    "require_same",
    "shared_shelves",
    "write_pack",
]
