"""Rows that an extraction finds in the packs at its destination, where the ledger lacks them.

A colleague's `dvc pull`, a new machine, a deleted cache folder: the pack under `cache/` is there,
the ledger is not. Its rows have the fingerprints that are asked for, or they are not taken.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.stage1.extractors import Extractor
from agiqa.stage1.ledger_rows import Job, LedgerRows
from agiqa.store import (
    IMPORTED,
    PackError,
    add_pack,
    digest,
    is_free,
    pack_beside,
    read_pack_metadata,
    require_replaceable,
)

log = logging.getLogger(__name__)


class Packs:
    """The packs that an extraction is to write, as they are before it."""

    def __init__(self, store: Path, extractor: Extractor) -> None:
        self.store = store
        kinds = dict.fromkeys(vector.store for vector in extractor.vectors)
        self.paths = {kind: pack_beside(store, kind) if kind else store for kind in kinds}

    def require_replaceable(self) -> None:
        """Refuse before any work what could not be written after it.

        Raises:
            AgiqaError: something lies there that is not a pack, or one of a newer layout, or one
                of imported vectors, which nobody here could compute again.
        """
        for path in self.paths.values():
            require_replaceable(path)
            if not is_free(path) and read_pack_metadata(path)["extractor"] == IMPORTED:
                raise AgiqaError(
                    f"{path}: expected vectors of `agiqa extract`, found imported ones, which it "
                    "would replace; give another semantic.name"
                )

    def give(self, rows: LedgerRows, jobs: Sequence[Job]) -> None:
        """Add to the ledger what the jobs lack and the packs have whole.

        Raises:
            AgiqaError: a pack's width is not the ledger's, another writer, a full disk.
        """
        wanted: defaultdict[str, set[str]] = defaultdict(set)  # row ids by a fingerprint's digest
        for job in jobs:
            for index in job.wanted:
                made_by = digest(rows.extractor.vectors[index].fingerprint)
                wanted[made_by].update(rows.row_ids(index, job.image_ids))
        for path in self.paths.values():
            if not wanted or is_free(path):
                continue
            try:
                sources = rows.sources.values()
                by_name = add_pack(path, rows.root, wanted, sources, rows.rank)
            except PackError as error:
                log.warning("nothing is taken from the old pack: %s", error)
                continue
            for name, column in by_name.items():
                if column.refused:
                    log.info("%s: '%s' is not taken: %s", path, name, column.refused)
            columns = by_name.values()
            if added := sum(column.added for column in columns):
                log.info("%s: %d vectors taken from the pack, not computed", path, added)
            if damaged := sum(len(column.damaged) for column in columns):
                log.warning("%s: %d vectors are damaged and not taken", path, damaged)
