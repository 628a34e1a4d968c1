"""Vectors out of a MATLAB file (.mat), or one out of a text file with a number a line.

Files of version 5 to 7 are read here, by MathWorks' description of them: SciPy's reader ends the
process on a damaged length, and unpacks a compressed element to whatever size it has. Only arrays
of real numbers are made; all else is known by its name and class.
"""

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from agiqa.core.errors import AgiqaError, one_line, printable, some
from agiqa.core.regular_files import MIB, read_regular

Content = TypeVar("Content")
MOST_BYTES = 16 * MIB  # of a file, and of what it unpacks to; 2,400 scores are 19 KiB
MATRIX, COMPRESSED = 14, 15  # types of a file's elements in version 5
NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
OTHER = {1: "cell", 2: "struct", 3: "object", 4: "<U1", 5: "sparse", 16: "function", 17: "opaque"}
COMPLEX = 0x800  # a flag


class Variable(NamedTuple):
    """What a file holds under a name."""

    name: str
    kind: str  # its class, where that is no array of real numbers
    numbers: np.ndarray | None


def read_vector(path: Path, key: str, count: int) -> np.ndarray:
    """Read the numbers under `key`, or all of a .txt: `(count,)` float64, all finite.

    Raises:
        AgiqaError: not such a file, no such key or two of them, or not so many finite numbers.
    """
    text = path.suffix.lower() == ".txt"
    values = _read(path, _text if text else lambda data: _matlab(data, path, key))
    if values.size != count or max(values.shape, default=0) != count:
        shape = " x ".join(map(str, values.shape))
        raise AgiqaError(f"{path}: expected {count:,} numbers, found {shape}: download it again")
    values = values.reshape(-1).astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        rows = some([str(row + 1) for row in wrong])
        raise AgiqaError(f"{path}: expected finite numbers; those of row {rows} are not")
    return values


def read_lists(path: Path) -> dict[str, np.ndarray]:
    """Read all lists of whole numbers in a .mat by their names: `(N,)` int64 each.

    Raises:
        AgiqaError: not such a file, no list in it, or another kind of variable.
    """
    lists: dict[str, np.ndarray] = {}
    for name, kind, numbers in _read(path, lambda data: _variables(data, path)):
        values = np.empty((0, 0)) if numbers is None else numbers
        is_list = 0 < values.size == max(values.shape) and (values % 1 == 0).all()
        if not is_list or name in lists:
            shape = kind or " x ".join(map(str, values.shape))
            raise AgiqaError(
                f"{path}: expected one list of whole numbers under each name, found "
                f"{printable(name)}, {shape}: save it as a CSV of names and sides"
            )
        lists[name] = values.reshape(-1).astype(np.int64)
    return lists


def _read(path: Path, parse: Callable[[bytes], Content]) -> Content:
    """Parse a file's bytes, with what is wrong with them in one line."""
    try:
        return parse(read_regular(path, MOST_BYTES))
    except AgiqaError:
        raise
    except (OSError, ValueError, struct.error, zlib.error, IndexError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise AgiqaError(f"{path}: cannot be read: {error.strerror}") from error
        reason = one_line(error) or type(error).__name__
        text = path.suffix.lower() == ".txt"
        kind = "expected one number a line" if text else "is not a readable MATLAB file"
        raise AgiqaError(f"{path}: {kind} ({reason}): download it again") from error


def _text(data: bytes) -> np.ndarray:
    return np.array([float(word) for word in data.decode("utf-8-sig").split()])


def _variables(data: bytes, path: Path) -> list[Variable]:
    if data[:19].startswith(b"MATLAB 7.3"):
        raise AgiqaError(
            f"{path}: is a MATLAB 7.3 file (HDF5), which is not read here; the official one is of "
            "version 7 or earlier: save it in MATLAB with -v7"
        )
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("unknown header; a file of version 4 is not read: save it with -v7")
    variables: list[Variable] = []
    room = MOST_BYTES
    for kind, content in _elements(data[128:], order, padded=False):
        if kind == COMPRESSED:
            unpacking = zlib.decompressobj()
            content = unpacking.decompress(content, room)
            room -= len(content)
            if not unpacking.eof:
                raise ValueError(f"cut short, or more than {MOST_BYTES:,} bytes when unpacked")
            ((kind, content),) = _elements(content, order, padded=False)
        if kind == MATRIX:
            variables.append(_variable(content, order))
    return variables


def _matlab(data: bytes, path: Path, key: str) -> np.ndarray:
    variables = _variables(data, path)
    matching = [variable for variable in variables if variable.name == key]
    if not matching:
        names = some([printable(variable.name) for variable in variables]) or "none"
        raise AgiqaError(
            f"{path}: expected the key {key}; found {names}: take the file of the official download"
        )
    if len(matching) > 1:
        raise ValueError(f"the key {key} stands twice")
    if matching[0].numbers is None:
        raise AgiqaError(f"{path}: expected real numbers under {key}, found {matching[0].kind}")
    return matching[0].numbers


def _variable(content: bytes, order: str) -> Variable:
    """Read the variable in a matrix's element: flags, sizes, name, numbers."""
    parts = list(itertools.islice(_elements(content, order), 4))
    if len(parts) < 3:
        raise ValueError("cut short")
    flags, sizes, name = (part for _, part in parts[:3])
    (word,) = struct.unpack_from(f"{order}I", flags)
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    text = name.rstrip(b"\0").decode("latin-1")
    unread = "complex128" if word & COMPLEX else OTHER.get(word & 0xFF, "")
    if unread:
        return Variable(text, unread, None)
    kind, numbers = parts[-1]
    if len(parts) < 4 or kind not in NUMBERS:
        raise ValueError(f"numbers of the unknown type {kind}")
    return Variable(text, "", _numbers(numbers, np.dtype(order + NUMBERS[kind]), shape))


def _numbers(content: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if min(shape, default=0) < 0 or np.prod(shape, dtype=float) * dtype.itemsize != len(content):
        raise ValueError(f"{len(content):,} bytes for {' x '.join(map(str, shape))} numbers")
    return np.frombuffer(content, dtype).reshape(shape, order="F")


def _elements(data: bytes, order: str, padded: bool = True) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each element; ValueError where one is longer than the data."""
    offset = 0
    while offset < len(data):
        kind, size = struct.unpack_from(f"{order}2I", data, offset)
        offset += 8
        if kind >> 16:  # a small one: its size beside the type, its content beside that
            kind, size, offset = kind & 0xFFFF, kind >> 16, offset - 4
            if size > 4:
                raise ValueError("damaged sizes")
            yield kind, data[offset : offset + size]
            offset += 4
            continue
        if size > len(data) - offset:
            raise ValueError("cut short")
        yield kind, data[offset : offset + size]
        offset += size + (-size % 8 if padded else 0)
