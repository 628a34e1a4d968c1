"""Weights of others: nothing in them runs, nothing unpacks to more, and no size is believed.

Of safetensors the header is looked at before anything is read or made room for. The format: eight
bytes say how long the header is, a JSON object that gives each tensor its type, its shape and where
its bytes lie behind it.

What torch.save wrote torch reads with `weights_only`, so that tensors come out and no other object
is made. It also unpacks records that are compressed, which torch.save never writes: a few MB would
become as many GB. Such files are refused before torch opens them.
"""

import math
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agiqa.core.errors import AgiqaError, one_line, printable
from agiqa.core.regular_files import MIB, open_regular
from agiqa.core.trees import parse_json

if TYPE_CHECKING:
    import torch

MOST_PICKLE = 64 * MIB  # of the names and shapes in a file of torch.save
MOST_HEADER = 32 * MIB  # a hundred thousand tensors; safetensors itself takes 100 MB
POINTER = b"version https://git-lfs.github.com/spec/"  # how a git-lfs pointer begins
MOST_POINTER = 1024  # bytes of one
BYTES = {  # of a number, by its type's name in the header; of rarer types safetensors knows them
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1},
    **{"I16": 2, "U16": 2, "F16": 2, "BF16": 2},
    **{"I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "C64": 8},
}
FLOATS = ("F16", "F32", "F64")


@dataclass(frozen=True)
class Entry:
    """A tensor in a file."""

    dtype: str  # as BYTES names it
    shape: tuple[int, ...]


def read_header(path: Path, again: str) -> dict[str, Entry]:
    """The tensors of a file by name, none of them read.

    Args:
        path: the file.
        again: what to do where it is damaged.

    Raises:
        AgiqaError: it is a git-lfs pointer, damaged, truncated, or contradicts itself.
    """
    try:
        with open_regular(path) as file:
            start = file.read(MOST_POINTER)
            _refuse_pointer(path, start)
            size = file.seek(0, 2)
            length = int.from_bytes(start[:8], "little")
            if size < 8 or length > min(MOST_HEADER, size - 8):
                raise ValueError(
                    f"its header claims {length:,} bytes of a file of {size:,}; at most "
                    f"{MOST_HEADER:,} are read"
                )
            file.seek(8)
            tree = parse_json(file.read(length))
        if not isinstance(tree, dict):
            raise ValueError("its header is no object")
        tree.pop("__metadata__", None)
        header = {name: _entry(name, entry, size - 8 - length) for name, entry in tree.items()}
    except (OSError, ValueError, RecursionError) as error:
        raise AgiqaError(f"{path}: damaged weights ({one_line(error)}); {again}.") from error
    return header


def _entry(name: str, entry: object, room: int) -> Entry:
    """One tensor of a header; `room` bytes lie behind it."""
    shown = printable(name)[:80]
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            if not all(type(n) is int and n >= 0 for n in shape):
                raise ValueError(f"tensor {shown} has the shape {shape[:8]}")
            byte_count = math.prod(shape) * BYTES.get(dtype, 0)
            if not 0 <= start <= end <= room or (dtype in BYTES and byte_count != end - start):
                raise ValueError(f"tensor {shown} does not lie where the header says")
            return Entry(dtype, tuple(shape))
    raise ValueError(f"tensor {shown} is described otherwise than by type, shape and place")


def require_entries(
    header: Mapping[str, Entry], expected: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]
) -> None:
    """Refuse a file that does not hold just the expected tensors, by name: types and shape.

    Raises:
        ValueError: names the first tensor that is missing, unexpected, or otherwise.
    """
    for name, (dtypes, shape) in expected.items():
        if name not in header:
            raise ValueError(f"tensor {name} is missing")
        entry = header[name]
        if entry.shape != shape:
            raise ValueError(f"tensor {name}: expected the shape {shape}, found {entry.shape}")
        if entry.dtype not in dtypes:
            raise ValueError(f"tensor {name}: expected {' or '.join(dtypes)}, found {entry.dtype}")
    if odd := sorted(header.keys() - expected.keys()):
        raise ValueError(f"tensor {printable(odd[0])[:80]} is not expected")


def require_finite(tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Refuse NaN and infinity.

    Raises:
        ValueError: names the tensor and how many of its numbers are.
    """
    import torch

    for name, tensor in tensors.items():
        finite = torch.isfinite(tensor)
        if not finite.all():
            count = int((~finite).sum())
            raise ValueError(
                f"tensor {printable(name)[:80]} holds NaN or infinity in {count:,} of "
                f"{tensor.numel():,} places"
            )


def require_weights(folder: Path) -> None:
    """Refuse a model folder of which a file is a git-lfs pointer, or its weights are damaged.

    Raises:
        AgiqaError: names the file and what to do.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            read_header(path, "copy it again")
        elif path.is_file() and path.stat().st_size <= MOST_POINTER:
            _refuse_pointer(path, path.read_bytes())


def _refuse_pointer(path: Path, start: bytes) -> None:
    if start.startswith(POINTER):
        raise AgiqaError(
            f"{path}: expected the file itself, found a git-lfs pointer to it: run `git lfs pull` "
            "where it was cloned, or download it again."
        )


def load_torch_file(path: Path, mapped: bool = False, most: int | None = None) -> Any:
    """The tensors in a file, on the CPU, in whatever mapping or list they were saved.

    Args:
        path: the file.
        mapped: leave them on disk until they are used, where the file's layout allows it.
        most: bytes that the file may have.

    Raises:
        ValueError: no regular file, larger than `most`, or an archive that torch.save never writes.
        Exception: whatever torch raises on damage, pickle.UnpicklingError on other objects.
    """
    import torch

    with open_regular(path) as file:
        size = file.seek(0, 2)
        if most is not None and size > most:
            raise ValueError(f"{size:,} bytes, the most that such a file has are {most:,}")
        archive = zipfile.is_zipfile(file)  # what torch wrote before 1.6 is none
        if archive:
            with zipfile.ZipFile(file) as opened:
                _require_plain(opened.infolist(), size)
    with warnings.catch_warnings():  # about pickles that it then refuses
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and archive)


def _require_plain(records: list[zipfile.ZipInfo], size: int) -> None:
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ValueError("compressed records, which torch.save never writes")
    if len({record.filename for record in records}) < len(records):
        raise ValueError("two records of one name")
    if sum(record.file_size for record in records) > size:
        raise ValueError("records that are larger than the file")
    if any(r.filename.endswith("data.pkl") and r.file_size > MOST_PICKLE for r in records):
        raise ValueError(f"more than {MOST_PICKLE:,} bytes of names and shapes")
