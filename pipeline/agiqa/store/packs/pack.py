"""Packs: one data set's vectors in `cache/<dataset>/<extractor>.zarr` or `.h5`.

`extract` packs them from the ledger; `fit`, `evaluate` and DVC read and move them, and need neither
ledger nor images. Same inputs, same bytes, so DVC sees no change where there is none. What is in
one: pack_layout.py; where it lies in each format: pack_zarr.py, pack_hdf5.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.urls import is_url
from agiqa.data.datasets.table import DATASET_JSON, IMAGES_CSV, ImagesTable
from agiqa.data.prompts import IMAGE_PROMPT
from agiqa.store.files import disk_errors, folder_aside, put_in_place, sync_tree
from agiqa.store.fingerprint import Fingerprint, plain
from agiqa.store.packs import pack_hdf5, pack_zarr
from agiqa.store.packs.pack_layout import (
    FORMAT,
    LAYOUT,
    Contents,
    PackError,
    PackRows,
    Rows,
    checksum,
    damaged,
    reading,
    require_packable,
    row_ids_digest,
    verify_metadata,
)
from agiqa.store.remote import copies_folder, fetch
from agiqa.store.row_ids import row_ids
from agiqa.store.rows import Vectors

# Each format is a module: `write`, `read_metadata`, `find_arrays` (rows unchecked; nothing that the
# file names outside itself is opened, no code of others loaded) and `content_damage` (what fails
# the libraries' own checksums, bytes from which nothing is read included).
FORMATS: dict[str, ModuleType] = {".zarr": pack_zarr, ".h5": pack_hdf5}

IMPORTED = "reference-pt"  # the extractor of vectors that other code made (upkeep/import_pt.py)
ANSWERS = "answers"  # the pack of probabilities beside that of an extractor's vectors
TOKENS = "tokens"  # the pack of a block's hidden states beside that of visual vectors
TAIL = "-tail.safetensors"  # ends the name of the weights behind that block, beside both


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """A pack in memory, checked."""

    path: Path
    extractor: str
    names: tuple[str, ...]  # of the P vectors
    fingerprints: tuple[Fingerprint, ...]  # one for each name
    image_ids: tuple[str, ...]  # of the rows in order: the image's, or as `row_ids` makes them
    vectors: Vectors  # (N, P, D)
    left_out: frozenset[str] = frozenset()  # rows that `extract --skip-bad` left out
    by_prompt: bool = False  # whether a row is of an image with its own prompt

    def row_ids(self, table: ImagesTable) -> list[str]:
        """List the id that each row of the images table has here: how the two are joined."""
        return row_ids(table, self.by_prompt)

    def rows(self, image_ids: Sequence[str]) -> Vectors:
        """The rows of these ids, in that order and as a copy: (n, P, D).

        AgiqaError says how many are missing.
        """
        if missing := [image_id for image_id in image_ids if image_id not in self._row_numbers]:
            raise AgiqaError(
                f"{self.path}: expected rows for {len(image_ids)} images, found "
                f"{len(image_ids) - len(missing)} (first missing: {missing[0]}); "
                "run `agiqa extract`, which computes only the missing ones"
            )
        rows = np.array([self._row_numbers[image_id] for image_id in image_ids], dtype=np.int64)
        return np.asarray(self.vectors[rows])

    @cached_property
    def _row_numbers(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}


def write_pack(
    path: Path,
    extractor: str,
    names: Sequence[str],
    fingerprints: Sequence[Fingerprint],
    image_ids: Sequence[str],
    vectors: Rows,
    left_out: Sequence[str] = (),
    row_ids: Mapping[str, str] | None = None,
) -> None:
    """Write vectors (N, P, D) of N different images as the pack `path`, replacing an older one.

    `vectors` is an array, or what gives slices of rows as an array would: they are taken block by
    block. `left_out` names images of the data set that are missing on purpose; `row_ids` has, by
    vector, the `row_ids_digest` of what the ledger knows rows by, where these are not image ids.

    Any stop leaves the old pack or the new one, whole. AgiqaError where the input does not fit, the
    disk fails, or `path` holds something that is not a pack.
    """
    require_packable(names, fingerprints, image_ids, vectors)
    metadata: dict[str, Any] = {
        "format": FORMAT,
        "layout": LAYOUT,
        "extractor": extractor,
        "names": list(names),
        "fingerprints": [plain(fingerprint) for fingerprint in fingerprints],
        "rows": len(image_ids),
        "width": int(vectors.shape[2]),
        "dtype": str(vectors.dtype.newbyteorder("=")),
    }
    if left_out:
        metadata["left_out"] = sorted(left_out)
    if row_ids:
        metadata["row_ids"] = dict(row_ids)
    metadata["check"] = checksum(metadata)
    put_contents(path, Contents(metadata, image_ids, vectors))


def put_contents(path: Path, contents: Contents) -> None:
    """Write contents whose metadata has been checked as the pack `path`, as `write_pack` says."""
    module = pack_format(path)
    with disk_errors("write the pack", path):
        require_replaceable(path)
        with folder_aside(path) as aside:
            new = aside / path.name
            module.write(new, contents)
            sync_tree(aside)
            put_in_place(new, path)


def read_pack(path: Path | str) -> FeatureStore:
    """Read a pack into memory, every row checked. Of a URL a copy is read (../remote.py).

    PackError where it is absent, foreign, of a newer layout or damaged; DamagedRowsError where
    rows are damaged or their chunk is missing. Never returns fill values as data.
    """
    pack_format(Path(path))
    pack = open_pack(local_copy(path))
    return FeatureStore(
        path=pack.path,
        extractor=pack.metadata["extractor"],
        names=tuple(pack.metadata["names"]),
        fingerprints=tuple(pack.metadata["fingerprints"]),
        image_ids=pack.image_ids,
        vectors=pack.everything(),
        left_out=frozenset(pack.metadata.get("left_out", ())),
        by_prompt=pack.by_prompt,
    )


def local_copy(path: Path | str) -> Path:
    """A path as it is; of a pack's URL the path of a copy, checked, under the same name."""
    if isinstance(path, Path) or not is_url(path):
        return Path(path)
    return fetch(path, copies_folder(path.rstrip("/").rpartition("/")[0]), read_pack)


def at_hand(cache: Path | str, dataset: str, packs: Sequence[str]) -> Path:
    """The folder that holds `dataset`'s folder: `cache`, or of a URL that of the copies.

    At the URL lies what `prepare` and `extract` wrote; images are not copied. `packs` are names of
    those that are needed, and of a tail's weights. AgiqaError where the URL cannot be read, lacks
    one of them, or holds a damaged one.
    """
    if isinstance(cache, Path) or not is_url(cache):
        return Path(cache)
    folder, url = copies_folder(cache), f"{cache.rstrip('/')}/{dataset}"
    for name in (IMAGES_CSV, DATASET_JSON, "splits"):  # compared with each other when they are read
        fetch(f"{url}/{name}", folder / dataset)
    for name in packs:
        check = open_pack if Path(name).stem.endswith(f"-{TOKENS}") else read_pack  # by its size
        fetch(f"{url}/{name}", folder / dataset, None if name.endswith(TAIL) else check)
    return folder


def open_pack(path: Path) -> PackRows:
    """Open a pack to read its rows block by block.

    PackError where it is absent, foreign, of a newer layout, or damaged in what all rows need:
    metadata, image ids, checksums; or has one row for an image whose prompts are asked for.
    """
    metadata = read_pack_metadata(path)
    with reading(path):
        pack: PackRows = pack_format(path).find_arrays(path, metadata)
    image_ids = pack.image_ids
    if (count := len(set(image_ids))) < len(image_ids):
        raise damaged(path, f"{len(image_ids)} rows of {count} images")
    recorded = metadata.get("row_ids", {})
    asking = {
        name
        for name, fingerprint in zip(metadata["names"], metadata["fingerprints"], strict=True)
        if IMAGE_PROMPT in str(fingerprint.get("prompt"))
    }
    if not asking <= recorded.keys() or (
        recorded and {row_ids_digest(image_ids)} != set(recorded.values())
    ):
        raise PackError(
            f"{path}: expected a row for each image and prompt, found one for each image; run "
            "`agiqa extract`, which packs it again from the ledger"
        )
    return pack


def read_pack_metadata(path: Path) -> Mapping[str, Any]:
    """The metadata of the pack `path` (pack_layout.py), checked; none of its rows is read.

    PackError where it is absent, foreign, of a newer layout or damaged.
    """
    module = pack_format(path)
    if not path.exists():
        raise PackError(f"{path}: expected a pack, found nothing; run `agiqa extract` first")
    with reading(path):
        metadata: Mapping[str, Any] = module.read_metadata(path)
        verify_metadata(path, metadata)
    return metadata


def pack_beside(path: Path, store: str) -> Path:
    """The pack of the same extractor's other vectors: `lmm-answers.zarr` beside `lmm.zarr`."""
    return path.with_name(f"{path.stem}-{store}{path.suffix}")


def pack_format(path: Path) -> ModuleType:
    """The format that the name of `path` says; AgiqaError where it says none."""
    if path.suffix not in FORMATS:
        raise AgiqaError(
            f"{path}: expected a pack named *{' or *'.join(FORMATS)}, found {path.suffix!r}; "
            "rename it"
        )
    return FORMATS[path.suffix]


def is_free(path: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def require_replaceable(path: Path) -> None:
    """Refuse to delete a stranger's data, or a whole folder that was named by mistake."""
    if is_free(path):
        return
    try:
        read_pack_metadata(path)
    except PackError as error:
        raise PackError(f"not overwritten: {error}") from error
