"""What the `paper` presets train on and are tested on: pixels, and two semantic vectors an image.

Beside `features`, which does the same for the `light` preset, with rows as there. In training the
pixels are flipped and turned: the random draws are made for a whole step on the CPU, so that they
do not depend on how many processes share it; the pixels are turned where they are used. After
MA-AGIQA's utils/process.py, whose "horizontal" flip acts on a channels-first array and so turns
images upside down.

The images are looked at in every epoch. Decoding and resizing takes many times as long as reading
150 KB, so it is done once, into a uint8 file that is mapped into memory, in the ledger's folder
beside the cached vectors:

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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.progress import track
from agiqa.core.trees import parse_json
from agiqa.core.whole_files import sync_folder, write_file
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImage, BadImagesError, ImageError, decode, resize_bicubic
from agiqa.stage2.contract import Rows
from agiqa.stage2.features import VISUAL, choose_vectors, describe_store, without_left_out
from agiqa.stage2.paper.network import SEMANTIC
from agiqa.stage2.presets import Recipe
from agiqa.store import default_root, digest, read_pack, require_same
from agiqa.store.files import disk_errors, open_own, require_own_file, require_own_folder
from agiqa.store.ledger.lock import writer_lock
from agiqa.store.ledger.shelf import PIXELS
from agiqa.store.rows import id_bytes, row_checksums

log = logging.getLogger(__name__)

# Of the uint8 pixels (B, H, W, 3).
FLIPS = {"vertical": 0, "horizontal": 1}  # axis of one image (H, W, 3)
TURNS = (0.33, 0.33, 0.34)  # the authors' shares of 90, 180 and 270 degrees
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
    description = {"format": "agiqa-pixels", "layout": LAYOUT, "fingerprint": fingerprint(size)}
    with disk_errors("open or create", folder):
        folder.mkdir(parents=True, exist_ok=True)
        require_own_folder(folder)
        if not (folder / DESCRIPTION).exists():  # another process, at the same time, writes as much
            for name in (ROWS, RECORDS):
                with suppress(FileExistsError):  # a link is there, too, and not followed
                    (folder / name).touch(exist_ok=False)
            write_file(folder / DESCRIPTION, (json.dumps(description, indent=2) + "\n").encode())
            sync_folder(folder.parent)
    _require_description(folder, description)
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
        path = require_own_file(self.folder / ROWS)
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


def _require_description(folder: Path, expected: Mapping[str, object]) -> None:
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
    require_same(expected, stored, where=str(folder), advice=advice)


@dataclass(frozen=True, eq=False)
class PaperInputs:
    """One row for each row of the images table."""

    image_ids: tuple[str, ...]  # of the N images
    pixels: Pixels
    semantic: np.ndarray  # (N, 2, D) float32
    prompts: tuple[str, ...]  # names of the two semantic vectors
    stores: Mapping[str, Any]  # what they were made by, for provenance: visual and semantic

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts in the gate's order."""
        return (*self.prompts, VISUAL)


def load_paper_inputs(
    table: ImagesTable,
    semantic: Path,
    size: int,
    workers: int,
    ledger: Path | None = None,
    patterns: Sequence[str] = (),
) -> tuple[ImagesTable, PaperInputs]:
    """Read the semantic store in bulk, decode what was not decoded yet, align both with the table.

    Args:
        table: the images.
        semantic: the store of semantic vectors.
        size: pixels a side of the regressor's input.
        workers: threads that decode.
        ledger: where pixels are kept; by default `agiqa.store.default_root()`.
        patterns: names of the two semantic vectors, or shell-style patterns; none: all there are.

    Returns:
        The table without the images that `extract --skip-bad` left out, and its inputs.

    Raises:
        AgiqaError: the store is absent, damaged or foreign, lacks images, or has not two such
            vectors an image; or images are absent or changed.
    """
    store = read_pack(semantic)
    chosen = choose_vectors(store.names, patterns, str(semantic))
    order = semantic_order(store.names, chosen, str(semantic))
    table = without_left_out(table, [store])
    ids = list(table.frame["image_id"])
    files = dict(zip(reversed(ids), reversed(table.paths()), strict=True))
    pixels = open_pixels({name: files[name] for name in dict.fromkeys(ids)}, size, ledger, workers)
    row_of = dict(zip(dict.fromkeys(ids), pixels.rows, strict=True))
    inputs = PaperInputs(
        image_ids=tuple(ids),
        pixels=Pixels(pixels.file, np.array([row_of[name] for name in ids])),
        semantic=store.rows(store.row_ids(table))[:, order].astype(np.float32),
        prompts=tuple(store.names[p] for p in order),
        stores={"semantic": describe_store(store, chosen), "visual": describe_pixels(size)},
    )
    return table, inputs


def semantic_order(names: Sequence[str], chosen: Sequence[int], where: str) -> list[int]:
    """Which vectors of a store are the network's two: the paper's by name, else as they stand.

    Args:
        names: of all its vectors.
        chosen: the places of those that `fit.vectors` names.
        where: begins the message of an error.

    Raises:
        AgiqaError: there are not two.
    """
    taken = [names[index] for index in chosen]
    if len(taken) != len(SEMANTIC):
        raise AgiqaError(
            f"{where}: expected two vectors an image ({', '.join(SEMANTIC)}), found "
            f"{len(taken)} ({', '.join(taken)}): use the prompt set ma_agiqa, name two in "
            "fit.vectors, or take fit.preset=light."
        )
    return [names.index(name) for name in SEMANTIC] if set(taken) == set(SEMANTIC) else [*chosen]


def network_inputs(
    pixels: Rows,
    semantic: np.ndarray,
    rows: np.ndarray,
    device: torch.device,
    draws: np.ndarray | None = None,
    flip: str = "",
) -> tuple[Tensor, Tensor]:
    """What the network takes of the images `rows` `(n,)`, flipped and turned as drawn."""
    images = torch.from_numpy(pixels[rows]).to(device)
    if draws is not None:
        images = augment(images, draws, flip)
    return as_input(images), torch.from_numpy(semantic[rows]).to(device)


def draw(count: int, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Draw what happens to images: quarter turns, 0 to 3, then whether to flip: `(count, 2)`."""
    turned = rng.random(count) < recipe.augment
    turns = rng.choice([1, 2, 3], size=count, p=TURNS)
    flipped = rng.random(count) < recipe.augment
    return np.stack(
        [np.where(turned & recipe.rotate, turns, 0), flipped & (recipe.flip in FLIPS)], axis=1
    )


def augment(pixels: Tensor, draws: np.ndarray, flip: str) -> Tensor:
    """Pixels `(B, S, S, 3)` turned and flipped as drawn `(B, 2)`."""
    images = []
    for image, (turns, flipped) in zip(pixels, draws, strict=True):
        turned = torch.rot90(image, int(turns), dims=(0, 1)) if turns else image
        images.append(turned.flip(FLIPS[flip]) if flipped else turned)
    return torch.stack(images)


def as_input(pixels: Tensor) -> Tensor:
    """Pixels `(B, H, W, 3)` of 0 to 255 to what the regressor takes, `(B, 3, H, W)` in [−1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
