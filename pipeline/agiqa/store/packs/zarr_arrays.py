"""A pack's arrays as Zarr v3 has them: what their zarr.json must say, and their chunks.

Zarr's metadata has no checksum. But all of ours follows from shape, dtype and chunk, so whatever
reads a pack compares every word of it with what it must be, and no flipped bit passes. Chunks are
read without Zarr, which obeys whatever codec, shape and store the metadata names, and those may be
a stranger's.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from agiqa.store.own_files import open_own, read_json, require_own_file
from agiqa.store.packs.pack_layout import MOST_JSON
from agiqa.store.rows import Vectors

if TYPE_CHECKING:
    import zarr

_SHOWN = 200  # characters of a value in a message
# Fields that may be left out, where they say nothing.
EMPTY: Mapping[str, object] = {
    "attributes": {},
    "storage_transformers": [],
    "dimension_names": None,
}


@dataclass(frozen=True)
class ZarrArray:
    """What an array must be, as the pack's metadata has it; its chunks lie in one flat folder."""

    folder: Path
    shape: tuple[int, ...]
    dtype: str  # as numpy writes it
    chunk_rows: int

    @property
    def chunks(self) -> int:
        """How many chunks there are; the last one is filled up."""
        return -(-self.shape[0] // self.chunk_rows)

    @property
    def chunk_bytes(self) -> int:
        """Give the bytes of a chunk, without its checksum."""
        return self.chunk_rows * math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    def file(self, number: int) -> Path:
        """Give the path of a chunk's file."""
        return self.folder / ".".join(["c", str(number), *("0" for _ in self.shape[1:])])

    def number(self, name: str) -> int | None:
        """Read a chunk's number from its file's name; None where no chunk is called so."""
        match = re.fullmatch(r"c\.(0|[1-9][0-9]{0,9})" + r"\.0" * (len(self.shape) - 1), name)
        return int(match[1]) if match and int(match[1]) < self.chunks else None

    def has_file(self, name: str) -> bool:
        """Tell whether it has a file of this name: a chunk within its rows, or its metadata."""
        return name == "zarr.json" or self.number(name) is not None

    def create(self) -> zarr.Array[Any]:
        """Make the empty array: chunks with crc32c, not compressed."""
        import zarr
        from zarr.codecs import Crc32cCodec
        from zarr.storage import LocalStore

        return zarr.create_array(
            LocalStore(self.folder),
            shape=self.shape,
            dtype=self.dtype,
            chunks=(self.chunk_rows, *self.shape[1:]),
            compressors=Crc32cCodec(),
            fill_value=float("nan") if self.dtype.startswith("<f") else None,
            chunk_key_encoding={"name": "default", "separator": "."},
        )

    def metadata_damage(self) -> str | None:
        """Say what is wrong with its zarr.json; None where nothing is.

        OSError for a disk that cannot be read; StrangeFileError for a link, pipe or device.
        """
        tree, wrong = read_json(self.folder / "zarr.json", MOST_JSON)
        if tree is None:
            return wrong
        expected = self._metadata()
        for field, value in expected.items():
            if (text := json.dumps(tree.get(field))) != json.dumps(value):
                return f"{field} is {text[:_SHOWN]}, not {json.dumps(value)}"
        for field, value in tree.items():
            if field not in expected and (field not in EMPTY or value != EMPTY[field]):
                return f"has a field {field[:_SHOWN]!r} that no array of agiqa has"
        return None

    def _metadata(self) -> dict[str, Any]:
        """What `create` writes, without the fields in `EMPTY`."""
        dtype = np.dtype(self.dtype)
        endian: dict[str, Any] = {"name": "bytes"}
        if dtype.itemsize > 1:
            endian["configuration"] = {"endian": "little"}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": str(dtype.newbyteorder("=")),
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.chunk_rows, *self.shape[1:]]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": "NaN" if dtype.kind == "f" else 0,
            "codecs": [endian, {"name": "crc32c"}],
        }

    def sizes(self) -> dict[int, int]:
        """Give the bytes of each present chunk by number; StrangeFileError for links and pipes."""
        sizes: dict[int, int] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if (number := self.number(entry.name)) is not None:
                    with suppress(FileNotFoundError):
                        sizes[number] = require_own_file(Path(entry.path)).stat().st_size
        return sizes

    def read_chunk(self, number: int) -> Vectors | None:
        """A chunk's rows, read-only; None where it is missing, of another size, or damaged.

        Only what must be there is read, whatever size the file has. OSError passes, a disk that
        cannot be read now says nothing about the rows; so does StrangeFileError.
        """
        size = self.chunk_bytes
        try:
            with open_own(self.file(number)) as opened:
                if os.fstat(opened.fileno()).st_size != size + 4:
                    return None
                data = np.frombuffer(opened.read(size + 4), dtype=np.uint8)
        except FileNotFoundError:
            return None
        check = int.from_bytes(data[size:].tobytes(), "little")
        if len(data) != size + 4 or google_crc32c.value(data[:size]) != check:
            return None
        return data[:size].view(self.dtype).reshape(self.chunk_rows, *self.shape[1:])
