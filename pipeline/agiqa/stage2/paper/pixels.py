"""Pixels of every image, decoded and resized once: a uint8 file that is mapped into memory.

The `paper` presets look at the images themselves, in every epoch. Decoding and resizing takes
many times as long as reading 150 KB, so it is done once, into the ledger's folder, beside the
cached vectors:

    pixels-<first 16 digits of the fingerprint's digest>/
        fingerprint.json   layout version and the whole fingerprint
        pixels.u8          rows of size x size x 3 bytes, one after the other
        rows.bin           for each row 32 bytes of image id and the CRC-32 of both, little-endian
        writer.lock, owner.json

A row counts once its bytes are fsynced and its record after them: a kill or a full disk loses one
batch at most. Each row's checksum is compared when the pixels are opened.
"""

import importlib.metadata
import json
import logging
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.progress import track
from agiqa.core.trees import parse_json
from agiqa.core.whole_files import sync_folder
from agiqa.data.images import BadImage, BadImagesError, ImageError, decode, resize_bicubic
from agiqa.store import default_root, digest, require_same
from agiqa.store.durable import disk_errors, folder_aside, sync_tree
from agiqa.store.ledger.lock import writer_lock
from agiqa.store.ledger.shelf_folders import PIXELS
from agiqa.store.own_files import open_own
from agiqa.store.rows import id_bytes, row_checksums

log = logging.getLogger(__name__)

LAYOUT = 2
BATCH = 64  # images decoded, written and acknowledged together: 10 MB
DESCRIPTION, RECORDS, ROWS = "fingerprint.json", "rows.bin", PIXELS
RECORD = 32 + 4  # bytes: image id, CRC-32


@dataclass(frozen=True, eq=False)
class Pixels:
    """N images, rows of a file that is mapped into memory."""

    file: np.ndarray  # (R, S, S, 3) uint8: every row of the cache
    rows: np.ndarray  # (N,): where the images lie in it

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, images: np.ndarray) -> np.ndarray:
        """A copy of the images `(n, S, S, 3)`."""
        return np.asarray(self.file[self.rows[images]])


def fingerprint(size: int) -> dict[str, object]:
    """Everything that changes the pixels."""
    return {
        "extractor": "pixels",
        "size": size,
        "resize": "bicubic, a = -0.75, no antialiasing",
        "libraries": {name: importlib.metadata.version(name) for name in ("pillow", "torch")},
    }


def describe_pixels(size: int) -> dict[str, Any]:
    """The pixels as a run's provenance names its stores."""
    return {"extractor": "pixels", "names": ["pixels"], "fingerprints": [fingerprint(size)]}


def resized(image: Image.Image, size: int) -> np.ndarray:
    """An RGB image as uint8 `(size, size, 3)`, its aspect not kept, as the regressor takes it."""
    return resize_bicubic(np.asarray(image), size)


def open_pixels(
    files: Mapping[str, Path], size: int, ledger: Path | None = None, workers: int = 4
) -> Pixels:
    """Pixels of images by id, in that order; those that the cache lacks are decoded now.

    Args:
        files: an image file for each image id.
        size: pixels a side.
        ledger: the ledger's folder; by default `agiqa.store.default_root()`.
        workers: threads that decode.

    Raises:
        BadImagesError: images absent or changed since `prepare`; the others are decoded first.
        AgiqaError: another writer, a full disk. Finished rows stay in every case.
    """
    name = digest({"layout": LAYOUT, **fingerprint(size)})[:16]
    folder = (ledger or default_root()) / f"pixels-{name}"
    with disk_errors("open or create", folder):
        if not (folder / DESCRIPTION).exists():
            _create(folder, size)
    _require_description(folder, size)
    cache = _Cache(folder, size)
    missing = cache.missing(files)
    if missing:
        with writer_lock(folder):
            cache.fill({name: files[name] for name in cache.missing(missing)}, workers)
    return cache.read(files)


class _Cache:
    """The decoded images as rows of a file on disk."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.shape = folder, (size, size, 3)
        self.records: dict[str, tuple[int, int]] = {}  # position and CRC-32 by id
        self.count = 0  # of records

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Ids whose row is absent or damaged."""
        with disk_errors("read", self.folder):
            self._read_records()
            file = self._map()
            return [name for name in ids if not self._whole(file, name)]

    def fill(self, files: Mapping[str, Path], workers: int) -> None:
        """Decode the images and add their rows; those that cannot be used are named at the end."""
        ids = list(files)
        if damaged := sum(name in self.records for name in ids):
            log.warning("%s: %d damaged rows are decoded again", self.folder, damaged)
        bad: list[ImageError] = []
        batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            for batch in track(batches, "Decode and resize", unit=BATCH, total=len(ids)):
                rows = list(pool.map(lambda name: self._load(name, files[name]), batch))
                bad += [row for row in rows if isinstance(row, ImageError)]
                pairs = zip(batch, rows, strict=True)
                self._add({name: row for name, row in pairs if isinstance(row, np.ndarray)})
        if bad:
            some = "; ".join(str(error) for error in bad[:3])
            raise BadImagesError(
                f"{len(bad)} images are not as they were at prepare: {some}. "
                "Run `agiqa prepare` again; the other images' pixels are kept.",
                [BadImage(printable(error.path), error.reason) for error in bad],
            )

    def read(self, ids: Iterable[str]) -> Pixels:
        """The rows of `ids`, which are all there."""
        rows = [self.records[name][0] for name in ids]
        return Pixels(self._map(), np.array(rows, dtype=np.int64))

    def _load(self, name: str, path: Path) -> np.ndarray | ImageError:
        try:
            return resized(decode(path, name), self.shape[0])
        except ImageError as error:
            return error

    def _add(self, rows: Mapping[str, np.ndarray]) -> None:
        if not rows:
            return
        pixels = np.stack(list(rows.values()))
        ids, first = list(rows), self.count
        with disk_errors("write pixels to", self.folder):
            pairs = zip(id_bytes(ids), row_checksums(id_bytes(ids), pixels), strict=True)
            records = b"".join(key + crc32.to_bytes(4, "little") for key, crc32 in pairs)
            for name, start, data in (
                (ROWS, first * pixels[0].nbytes, pixels.data),
                (RECORDS, first * RECORD, records),
            ):
                with (self.folder / name).open("rb+") as file:
                    file.seek(start)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        self._read_records()

    def _read_records(self) -> None:
        """Take in the records that are whole; the end of one that a killed writer left is not."""
        with open_own(self.folder / RECORDS) as file:
            data = file.read()
        self.count = len(data) // RECORD
        for position in range(self.count):
            record = data[position * RECORD : (position + 1) * RECORD]
            self.records[record[:32].hex()] = position, int.from_bytes(record[32:], "little")

    def _map(self) -> np.ndarray:
        """The whole rows `(R, S, S, 3)` that the file has now."""
        path = self.folder / ROWS
        count = path.stat().st_size // int(np.prod(self.shape))
        if not count:
            return np.zeros((0, *self.shape), dtype=np.uint8)
        return np.memmap(path, dtype=np.uint8, mode="r", shape=(count, *self.shape))

    def _whole(self, file: np.ndarray, name: str) -> bool:
        if name not in self.records:
            return False
        position, crc32 = self.records[name]
        row = file[position : position + 1]
        return len(row) == 1 and row_checksums(id_bytes([name]), row) == [crc32]


def _create(folder: Path, size: int) -> None:
    """Lay out an empty cache aside and move it into place; another process may be first."""
    with folder_aside(folder) as aside:
        new = aside / "pixels"
        new.mkdir()
        (new / ROWS).touch()
        (new / RECORDS).touch()
        text = json.dumps(_description(size), indent=2) + "\n"
        (new / DESCRIPTION).write_text(text, encoding="utf-8")
        sync_tree(new)
        try:
            new.rename(folder)
        except OSError:
            if not (folder / DESCRIPTION).exists():
                raise
        sync_folder(folder.parent)


def _description(size: int) -> dict[str, object]:
    return {"format": "agiqa-pixels", "layout": LAYOUT, "fingerprint": fingerprint(size)}


def _require_description(folder: Path, size: int) -> None:
    path = folder / DESCRIPTION
    with disk_errors("read", path):
        text = path.read_text(encoding="utf-8")
    try:
        stored = parse_json(text)
    except ValueError as error:
        raise AgiqaError(
            f"{path}: expected the description of cached pixels, found damaged JSON; "
            f"move {folder} away"
        ) from error
    advice = "choose another store folder (AGIQA_STORE), or move this one away"
    require_same(_description(size), stored, where=str(folder), advice=advice)
