"""The feature store: a ledger that never loses a computed row, and packs that DVC can move.

`extract` (stage 1) writes; `fit`, `evaluate` and `score` (stage 2) read packs.

    ledger/     shelves of rows by fingerprint, as immutable segments (shelf.py), here and at a URL
    packs/      a data set's vectors as Zarr or HDF5 (pack.py)
    upkeep/     behind `agiqa cache`: listings, checks and repairs, rows from and to elsewhere
    rows.py, row_ids.py, fingerprint.py, files.py, remote.py serve all of them
"""

from agiqa.store.fingerprint import ABSENT as ABSENT
from agiqa.store.fingerprint import Fingerprint as Fingerprint
from agiqa.store.fingerprint import FingerprintMismatchError as FingerprintMismatchError
from agiqa.store.fingerprint import difference as difference
from agiqa.store.fingerprint import digest as digest
from agiqa.store.fingerprint import require_same as require_same
from agiqa.store.ledger.lock import LockedError as LockedError
from agiqa.store.ledger.sharing import pull as pull
from agiqa.store.ledger.sharing import pushing as pushing
from agiqa.store.ledger.sharing import shared_shelves as shared_shelves
from agiqa.store.ledger.shelf import Shelf as Shelf
from agiqa.store.ledger.shelf import ShelfWriter as ShelfWriter
from agiqa.store.ledger.shelf import default_root as default_root
from agiqa.store.packs.pack import ANSWERS as ANSWERS
from agiqa.store.packs.pack import FORMATS as FORMATS
from agiqa.store.packs.pack import IMPORTED as IMPORTED
from agiqa.store.packs.pack import TAIL as TAIL
from agiqa.store.packs.pack import TOKENS as TOKENS
from agiqa.store.packs.pack import FeatureStore as FeatureStore
from agiqa.store.packs.pack import is_free as is_free
from agiqa.store.packs.pack import local_copy as local_copy
from agiqa.store.packs.pack import open_pack as open_pack
from agiqa.store.packs.pack import pack_beside as pack_beside
from agiqa.store.packs.pack import read_pack as read_pack
from agiqa.store.packs.pack import read_pack_metadata as read_pack_metadata
from agiqa.store.packs.pack import require_replaceable as require_replaceable
from agiqa.store.packs.pack import write_pack as write_pack
from agiqa.store.packs.pack_layout import PackError as PackError
from agiqa.store.packs.pack_layout import row_ids_digest as row_ids_digest
from agiqa.store.remote import RemoteError as RemoteError
from agiqa.store.rows import DamagedRowsError as DamagedRowsError
from agiqa.store.upkeep.export import convert_pack as convert_pack
from agiqa.store.upkeep.merge import add_pack as add_pack
