"""What runs on the nodes of a Ray cluster: images decoded in tasks, vectors made by actors.

A unit of work is a few batches of images that lack the same vectors. What stands against one image
is a reason in the unit's result; a failure of the node itself is one line that names it. A result
comes only when its rows are durable: in the ledger where the node shares it, else in the result.
"""

import pickle
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.urls import is_url
from agiqa.data.images import MAX_BYTES, ImageError, decode
from agiqa.stage1.batches import NewRows, Trying, in_batches, why_bad
from agiqa.stage1.extractors import Extractor, Recipe, Sample
from agiqa.store import Fingerprint, RemoteError, digest, require_same
from agiqa.store.ledger.segment_rows import SegmentRows
from agiqa.store.ledger.segments import Kind, LocalSegments, RemoteSegments, SegmentFolder, build
from agiqa.store.ledger.shelf import FLUSH_SECONDS, shelf_folder
from agiqa.store.remote import Remote
from agiqa.store.row_ids import row_id

MOST_STARTS = 3  # of a unit: then it is what ends the processes

Row = Mapping[str, Any]  # of a Ray data set: one column of bytes


@dataclass(frozen=True)
class Work:
    """What all units of an extraction have in common."""

    recipe: Recipe
    fingerprints: tuple[Fingerprint, ...]  # of the vectors, as the driver knows them
    version: str  # the driver's agiqa
    ledger: Path
    token: str  # a file in the ledger's folder; a node that sees it shares the driver's disk
    url: str  # that shares the ledger; "": none
    roll: Any  # a handle of `Roll`


class Roll:
    """An actor that knows where each unit was begun; whoever begins it again looks what is done."""

    def __init__(self) -> None:
        self.nodes: dict[int, list[str]] = {}

    def begin(self, unit: int, node: str) -> list[str]:
        """Note that a node begins a unit; the nodes that began it before."""
        before = self.nodes.setdefault(unit, [])
        before.append(node)
        return before[:-1]


class Place(NamedTuple):
    """An image, where it lies, and its prompt where that is asked."""

    image_id: str
    address: str  # a path or a URL
    image_prompt: str | None


class Unit(NamedTuple):
    """Images that lack the same vectors."""

    number: int
    wanted: tuple[int, ...]
    places: Mapping[str, Place]  # by row id


@dataclass
class Result:
    """What became of a unit."""

    images: int
    bad: dict[str, str] = field(default_factory=dict)  # by id, the reason
    unseen: dict[str, str] = field(default_factory=dict)  # files that a node does not see: which
    rows: list[NewRows] = field(default_factory=list)  # for the driver to write
    error: str = ""  # of the node: it ends the extraction


def decode_unit(row: Row, work: Work) -> Row:
    """Decode and preprocess a unit's images."""
    unit: Unit = pickle.loads(row["unit"])
    result, samples = Result(len(unit.places)), list[tuple[str, Sample]]()
    try:
        extractor = extractor_here(work)
        for name, source in unit.places.items():
            try:
                image = decode(_source(source.address, result, name), source.image_id)
                samples.append((name, extractor.preprocess(image, source.image_prompt)))
            except Exception as error:
                result.bad[name] = why_bad(error)
    except AgiqaError as error:
        result.error = _of_node(error)
    return {"decoded": pickle.dumps((unit, samples, result), protocol=5)}


class UnitExtractor:
    """An actor with the model: samples of a unit to rows."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._model: Trying | None = None

    def __call__(self, row: Row) -> Row:
        """Extract a unit that `decode_unit` has decoded."""
        unit, samples, result = pickle.loads(row["decoded"])
        try:
            if not result.error:
                self._extract(unit, samples, result)
        except AgiqaError as error:
            result.error = _of_node(error)
        return {"result": pickle.dumps(result, protocol=5)}

    def _extract(self, unit: Unit, samples: list[tuple[str, Sample]], result: Result) -> None:
        extractor = extractor_here(self.work)
        self._model = self._model or Trying(extractor, {})
        self._model.bad = result.bad
        output = Output(self.work, extractor, unit, result)
        for wanted, names in self._missing(unit, output).items():
            missing = [(name, sample) for name, sample in samples if name in names]
            for ids, batch in in_batches(missing, extractor.batch_size):
                for part, vectors in self._model.rows(ids, batch, wanted):
                    for new in self._model.new_rows(wanted, part, vectors):
                        output.add(new)
        output.flush()

    def _missing(self, unit: Unit, output: "Output") -> dict[tuple[int, ...], set[str]]:
        """The unit's images by what they lack: all of it, unless a lost process left some rows."""
        import ray

        before = ray.get(self.work.roll.begin.remote(unit.number, node_name()))
        if not before:
            return {unit.wanted: set(unit.places)}
        if len(before) >= MOST_STARTS:
            first = next(iter(unit.places.values())).address
            raise AgiqaError(
                f"the model's process ended {len(before)} times (on {', '.join(before)}) at the "
                f"same {len(unit.places)} images, the first of them {first}: look at those nodes' "
                "memory (dmesg), or take these images out"
            )
        missing: dict[tuple[int, ...], set[str]] = {}
        present = output.present()
        for name in unit.places:
            wanted = tuple(index for index in unit.wanted if name not in present[index])
            missing.setdefault(wanted, set()).add(name)
        missing.pop((), None)
        return missing


class Output:
    """Where a unit's rows go: into segments of the ledger that all share, or into the result."""

    def __init__(self, work: Work, extractor: Extractor, unit: Unit, result: Result) -> None:
        self.extractor, self.unit, self.result = extractor, unit, result
        self.shelves: dict[int, tuple[SegmentFolder, Kind]] = {}
        for index in unit.wanted:
            vector = extractor.vectors[index]
            folder = shelf_folder(work.ledger, vector.fingerprint)
            files: SegmentFolder = LocalSegments(folder)
            if work.url:
                files = RemoteSegments(Remote(f"{work.url}/{folder.name}"))
            kind = Kind(digest(vector.fingerprint), vector.width, extractor.precision)
            self.shelves[index] = files, kind
        self.is_shared = bool(work.url) or (work.ledger / work.token).is_file()
        self._flushed_at = time.monotonic()

    def present(self) -> dict[int, set[str]]:
        """By wanted vector, the unit's images that the shared ledger has now."""
        present: dict[int, set[str]] = {}
        for index, (folder, kind) in self.shelves.items():
            rows = SegmentRows(folder, kind)
            if self.is_shared:
                rows.refresh()
            present[index] = {
                name for name in self.unit.places if self._row_id(index, name) in rows
            }
        return present

    def add(self, new: NewRows) -> None:
        """Take rows; they are flushed some seconds later."""
        self.result.rows.append(new)
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write to the shared ledger what was taken, a segment a vector.

        Raises:
            AgiqaError: the disk or the URL refuses.
        """
        self._flushed_at = time.monotonic()
        if not self.is_shared:
            return
        by_vector: dict[int, list[NewRows]] = {}
        for new in self.result.rows:
            by_vector.setdefault(new.vector, []).append(new)
        for index, parts in by_vector.items():
            folder, kind = self.shelves[index]
            ids = [self._row_id(index, name) for part in parts for name in part.image_ids]
            folder.write(*build(kind, ids, np.concatenate([part.vectors for part in parts])))
        self.result.rows.clear()

    def _row_id(self, index: int, name: str) -> str:
        vector, source = self.extractor.vectors[index], self.unit.places[name]
        return row_id(source.image_id, source.image_prompt if vector.asks_image_prompt else None)


_made: dict[str, Extractor] = {}  # by its fingerprints; a process has one at a time


def extractor_here(work: Work) -> Extractor:
    """Make the extractor of this process, once, and hold it against the driver's.

    Raises:
        AgiqaError: another agiqa, other libraries or other model files than the driver's; a model
            that is not here.
    """
    key = digest({"vectors": list(work.fingerprints)})
    if key not in _made:
        advice = (
            "install the same versions and put the same model on every node, then run the same "
            "command again"
        )
        if work.version != (own := version("agiqa")):
            raise AgiqaError(f"expected agiqa {work.version}, found {own}; {advice}")
        extractor = work.recipe.make()
        made = [dict(vector.fingerprint) for vector in extractor.vectors]
        require_same(list(work.fingerprints), made, where="the model here", advice=advice)
        _made.clear()
        _made[key] = extractor
    return _made[key]


def node_name() -> str:
    """Name the node: its address in the cluster, and its host's name."""
    import ray

    return f"{ray.util.get_node_ip_address()} ({socket.gethostname()})"


def _source(address: str, result: Result, row: str) -> Path | bytes:
    """The file, or the bytes at a URL; a file that is not here is noted as unseen.

    Raises:
        ImageError: nothing is there.
        RemoteError: the URL cannot be reached.
    """
    if not is_url(address):
        path = Path(address)
        if not path.exists():
            result.unseen[row] = node_name()
        return path
    folder, _, name = address.rpartition("/")
    try:
        return Remote(folder).read(name, MAX_BYTES)
    except RemoteError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise ImageError(Path(name), "does not exist") from error
        raise


def _of_node(error: AgiqaError) -> str:
    return f"node {node_name()}: {error} (finished rows are kept)"
