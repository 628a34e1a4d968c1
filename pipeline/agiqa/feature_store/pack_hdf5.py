"""Packs as HDF5 files: chunks of 256 rows with fletcher32, metadata as JSON in a byte data set.

    /                                  attributes format and layout
    /metadata                          (M,) uint8, the metadata as JSON (attributes end at 64 KiB)
    /vectors, /image_id, /row_crc32    the arrays

Plain `h5py.File` reads it. HDF5 crashes the whole process on a full disk, so the file is built in
memory and its bytes are written by us.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agiqa.feature_store.pack_layout import ARRAYS, FORMAT, Contents, PackError, damaged


def write(path: Path, contents: Contents) -> None:
    """Write a new file; the caller makes it durable and moves it into place."""
    path.write_bytes(_image(path.name, contents))


def _image(name: str, contents: Contents) -> bytes:
    """The file's bytes."""
    with h5py.File(name, "w", driver="core", backing_store=False) as file:
        file.attrs["format"] = FORMAT
        file.attrs["layout"] = contents.metadata["layout"]
        text = json.dumps(contents.metadata).encode()
        metadata = np.frombuffer(text, dtype=np.uint8)
        file.create_dataset("metadata", data=metadata, chunks=metadata.shape, fletcher32=True)
        for array, chunk_rows in ARRAYS.items():
            values = getattr(contents, array)
            file.create_dataset(
                array,
                data=values,
                chunks=(min(chunk_rows, len(values)), *values.shape[1:]),
                fletcher32=True,
                fillvalue=np.nan if array == "vectors" else None,
                track_times=False,
            )
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def read_metadata(path: Path) -> Mapping[str, Any]:
    """The metadata in the file at `path`, unchecked; PackError where it is no pack in HDF5."""
    try:
        with h5py.File(path, "r") as file:
            found = {key: file.attrs[key] for key in ("format", "layout") if key in file.attrs}
            if found.get("format") != FORMAT or "metadata" not in file:
                return {"format": str(found.get("format", "unknown HDF5"))}
            metadata: dict[str, Any] = json.loads(file["metadata"][...].tobytes())
            return metadata
    except FileNotFoundError:
        reason = "nothing there"
    except OSError as error:
        if error.errno is not None:  # the disk's own, not HDF5's
            raise
        reason = "a file that HDF5 cannot read"
    except Exception:  # HDF5 has many ways to reject bytes
        reason = "damaged metadata"
    raise PackError(
        f"{path}: expected an HDF5 pack of agiqa, found {reason}; "
        "name the pack that `agiqa extract` wrote, or run it again"
    )


@contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays by name, to be read piece by piece; KeyError where one is not there."""
    with h5py.File(path, "r") as file:
        yield {name: file[name] for name in ARRAYS}


def structure_damage(path: Path, metadata: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """What is wrong outside the arrays' chunks: a whole pack, written anew, has the same bytes.

    HDF5's own structures have no checksum in this version of its format. Takes memory for the file
    twice over; call it for packs whose rows are whole.
    """
    try:
        image = _image(path.name, read(path, metadata))
    except Exception:  # HDF5 has many ways to reject bytes
        return [(path, "cannot be read whole")]
    found = path.read_bytes()
    if found == image:
        return []
    differ = sum(a != b for a, b in zip(found, image, strict=False)) + abs(len(found) - len(image))
    what = (
        f"every row is whole, but {differ} bytes differ from those of the same pack written now: "
        "damaged outside the checksums, or written by another version of HDF5"
    )
    return [(path, what)]


def read(path: Path, metadata: Mapping[str, Any]) -> Contents:
    """Read all arrays of a pack whose metadata has been checked; rows are not checked yet."""
    arrays = {}
    with h5py.File(path, "r") as file:
        for name in ARRAYS:
            try:
                arrays[name] = np.asarray(file[name][...])
            except KeyError as error:
                raise damaged(path, f"no data set {name}") from error
            except Exception as error:  # HDF5 has many ways to reject bytes
                found = f"a data set {name} with a chunk that fails its checksum"
                raise damaged(path, found) from error
    return Contents(metadata, **arrays)
