"""Rows of an extractor's vectors in the ledger, by image: which there are, which are missing.

The hero of stage 1: `extract` asks here what to compute, and packs from here. A vector's shelf
knows an image by its bytes, and by its own prompt where the vector's question holds it; an image
with two prompts is then two of the sources, which share the rows of all other vectors.
"""

import itertools
import logging
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.stage1.extractors import Extractor, Vector
from agiqa.store import Shelf, default_root, pull, shared_shelves
from agiqa.store.ledger.sharing import SharedShelf
from agiqa.store.ledger.shelf import DESCRIPTION, ShelfWriter, shelf_folder
from agiqa.store.row_ids import Source
from agiqa.store.upkeep.verification import repair_shelf

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Images that lack the same vectors."""

    wanted: tuple[int, ...]  # places of vectors
    image_ids: tuple[str, ...]  # as the sources are named: by `Source.row_id`

    def without(self, image_ids: Mapping[str, object]) -> "Job":
        """Give the job without some of its images."""
        return Job(self.wanted, tuple(name for name in self.image_ids if name not in image_ids))


def count(jobs: Sequence[Job]) -> int:
    """Number of vectors to compute."""
    return sum(len(job.wanted) * len(job.image_ids) for job in jobs)


def images_of(jobs: Sequence[Job]) -> list[str]:
    """The images of the jobs, each once."""
    return list(dict.fromkeys(name for job in jobs for name in job.image_ids))


class LedgerRows:
    """The extractor's rows in the ledger, by image; with `$AGIQA_STORE` a URL, also those there.

    Args:
        extractor: what makes the vectors.
        sources: the images by id.
        ledger: the ledger's folder; by default `store.default_root()`, which a URL may share.
        rank: of this process among several that write at once.
        absent: where shelves are created that are not there; by default in the ledger.
        opened: shelves that stay open from one call to the next, by folder; new ones are added.

    Raises:
        AgiqaError: two of the vectors are the same; a shelf on disk is another's.
    """

    def __init__(
        self,
        extractor: Extractor,
        sources: Mapping[str, Source],
        ledger: Path | None,
        rank: int = 0,
        absent: Path | None = None,
        opened: dict[Path, Shelf] | None = None,
    ) -> None:
        self.extractor, self.sources, self.rank = extractor, sources, rank
        self.root, self.has_own_root = ledger or default_root(), ledger is not None
        self.opened: dict[Path, Shelf] = {} if opened is None else opened
        for one, other in itertools.combinations(extractor.vectors, 2):
            if one.fingerprint == other.fingerprint:
                raise AgiqaError(
                    f"The vectors '{one.name}' and '{other.name}' of '{extractor.name}' are the "
                    "same: nothing but their names tells them apart; ask for one of them."
                )
        self.shelves = [self._shelf(vector, absent) for vector in extractor.vectors]

    def _shelf(self, vector: Vector, absent: Path | None) -> Shelf:
        """Open the shelf of a vector, unless it is open and still there."""
        made_by = dict(vector.fingerprint)
        folder = shelf_folder(self.root, made_by)
        exists = (folder / DESCRIPTION).exists()
        if not exists or folder not in self.opened:
            root = self.root if exists or absent is None else absent
            shelf = Shelf.open(root, made_by, vector.width, self.extractor.precision, self.rank)
            self.opened[folder] = shelf
        return self.opened[folder]

    def writers(self, stack: ExitStack, jobs: Sequence[Job]) -> dict[int, ShelfWriter]:
        """Open the shelves that the jobs write to, until the stack closes."""
        return {
            index: stack.enter_context(self.shelves[index].writer())
            for index in sorted({index for job in jobs for index in job.wanted})
        }

    @cached_property
    def shared(self) -> list[SharedShelf]:
        """The shelves as a URL shares them; none where no URL does."""
        return shared_shelves(self.shelves, own_folder=self.has_own_root)

    def row_ids(self, index: int, ids: Sequence[str]) -> list[str]:
        """What a vector's shelf knows the images by: their bytes, and a prompt that is asked."""
        sources = [self.sources[name] for name in ids]
        asks_prompt = self.extractor.vectors[index].asks_image_prompt
        return [source.row_id if asks_prompt else source.image_id for source in sources]

    def by_shelf(self, ids: Sequence[str]) -> list[list[str]]:
        """The images' row ids, shelf by shelf."""
        return [self.row_ids(index, ids) for index in range(len(self.shelves))]

    def missing(self, ids: Sequence[str]) -> list[Job]:
        """The images that lack vectors here, together with those that lack the same."""
        return self._jobs(ids, [shelf.refreshed() for shelf in self.shelves])

    def missing_everywhere(self, ids: Sequence[str]) -> list[Job]:
        """As `missing`, but for what lies at the URL that shares the ledger.

        Raises:
            RemoteError: the URL cannot be reached.
        """
        for shared in self.shared:
            shared.look()
        present = [shared.shelf.ids() | shared.ids() for shared in self.shared]
        return self._jobs(ids, present) if self.shared else self.missing(ids)

    def _jobs(self, ids: Sequence[str], present: Sequence[Container[str]]) -> list[Job]:
        wanted: dict[str, list[int]] = {}
        for index, rows in enumerate(present):
            first = dict(zip(reversed(self.row_ids(index, ids)), reversed(ids), strict=True))
            for row in reversed(first):
                if row not in rows:
                    wanted.setdefault(first[row], []).append(index)
        jobs: dict[tuple[int, ...], list[str]] = {}
        for name in ids:
            if name in wanted:
                jobs.setdefault(tuple(wanted[name]), []).append(name)
        return [Job(indices, tuple(names)) for indices, names in jobs.items()]

    def pull(self, ids: Sequence[str]) -> None:
        """Bring here what the URL has of these images and this machine lacks.

        Raises:
            RemoteError: the URL cannot be reached.
        """
        pull(self.shared, self.by_shelf(ids) if self.shared else ())

    def pull_again(self, ids: Sequence[str]) -> None:
        """As `pull`, while a thread pushes: by a look of its own at the URL."""
        if self.shared:
            pull(shared_shelves(self.shelves), self.by_shelf(ids))

    def drop_damaged(self, ids: Sequence[str]) -> None:
        """Make rows that fail their checksum absent, so that they are computed again.

        A damaged segment's other rows are saved (`repair_shelf`).
        """
        for index, shelf in enumerate(self.shelves):
            if shelf.damaged(self.row_ids(index, ids)):
                for done in repair_shelf(shelf.folder):
                    log.warning("%s", done)

    def read(self, ids: Sequence[str]) -> list[np.ndarray]:
        """Each vector `(N, D)` of the images; every row is checked."""
        return [shelf.read(self.row_ids(index, ids)) for index, shelf in enumerate(self.shelves)]


class RowsToPack:
    """Some of the vectors `(N, P, D)` of images, read from the ledger as they are asked for."""

    def __init__(self, rows: LedgerRows, indices: Sequence[int], ids: Sequence[str]) -> None:
        self.rows, self.indices, self.ids = rows, indices, ids
        width = rows.extractor.vectors[indices[0]].width
        self.shape = (len(ids), len(indices), width)
        self.dtype = np.dtype(rows.extractor.precision)

    def __getitem__(self, rows: slice) -> np.ndarray:
        ids, shelves = self.ids[rows], self.rows.shelves
        vectors = [shelves[index].read(self.rows.row_ids(index, ids)) for index in self.indices]
        return np.stack(vectors, axis=1)
