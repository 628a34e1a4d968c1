import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.matlab import read_vector

SCORES = np.array([3.00820892, 2.5, 1.0])


@pytest.mark.parametrize("compress", [False, True])
def test_columns_and_rows(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "a.mat"
    for shape in ((3, 1), (1, 3)):
        variables = {"other": [1.0], "MOSz": SCORES.reshape(shape)}
        savemat(path, variables, do_compression=compress)
        assert read_vector(path, "MOSz", 3).tolist() == SCORES.tolist()


def test_a_number_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("   3.0082089e+00\r\n2.5\n1\n")
    assert read_vector(tmp_path / "a.txt", "MOSz", 3).tolist() == [3.0082089, 2.5, 1.0]
    (tmp_path / "a.txt").write_text("3.0 ?\n")
    with pytest.raises(AgiqaError, match=r"expected one number a line .*'\?'"):
        read_vector(tmp_path / "a.txt", "MOSz", 2)


def test_no_such_key(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"MOS": SCORES, "SD": SCORES})
    with pytest.raises(AgiqaError, match=r"a.mat: expected the key MOSz; found MOS, SD"):
        read_vector(tmp_path / "a.mat", "MOSz", 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (SCORES[:2], "expected 3 numbers, found 1 x 2"),
        (np.ones((3, 3)), "expected 3 numbers, found 3 x 3"),
        (np.array([1, np.nan, 3]), "expected finite numbers; those of row 2 are not"),
        (np.array([1j, 2, 3]), "expected real numbers under MOSz, found complex128"),
        (["a", "b", "c"], "expected real numbers under MOSz, found <U1"),
    ],
)
def test_other_values(tmp_path: Path, value: object, message: str) -> None:
    savemat(tmp_path / "a.mat", {"MOSz": value})
    with pytest.raises(AgiqaError, match=message):
        read_vector(tmp_path / "a.mat", "MOSz", 3)


def test_version_7_3(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["MOSz"] = SCORES
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    with (tmp_path / "a.mat").open("r+b") as raw:
        raw.write(header)
    with pytest.raises(AgiqaError, match=r"a.mat: is a MATLAB 7.3 file \(HDF5\).* save .* -v7"):
        read_vector(tmp_path / "a.mat", "MOSz", 3)


def element(kind: int, content: bytes, size: int | None = None) -> bytes:
    """An element of version 5, padded unless it is compressed."""
    size = len(content) if size is None else size
    return struct.pack("<2I", kind, size) + content + b"\0" * (-len(content) % 8 * (kind != 15))


def variable(name: bytes = b"MOSz", rows: int = 3, kind: int = 6, numbers: bytes = b"") -> bytes:
    """A matrix of doubles with its header."""
    flags, sizes = struct.pack("<2I", kind, 0), struct.pack("<2i", rows, 1)
    parts = element(6, flags) + element(5, sizes) + element(1, name)
    return element(14, parts + element(9, numbers or struct.pack("<3d", 1, 2, 3)))


HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a readable MATLAB file .*again"),
        (b"no MAT file", "is not a readable MATLAB file"),
        (b"\x00" * 200, "is not a readable MATLAB file"),
        (
            lambda: HEAD + element(15, zlib.compress(b"\0" * (20 << 20))),
            "more than 16,777,216 bytes when",
        ),
        (HEAD + element(15, zlib.compress(variable()[:60])), "cut short|unpack"),
        (HEAD + element(15, zlib.compress(variable())[:-9]), "cut short"),
        (HEAD + variable(rows=2**31 - 1), "numbers under MOSz|not a readable"),
        (HEAD + variable(rows=-3), "not a readable|expected 3"),
        (HEAD + variable() * 2, "the key MOSz stands twice"),
        (HEAD + variable(kind=1), "found cell"),
        (HEAD + element(14, b"", 2**31), "cut short"),
        (HEAD + variable(numbers=b"x" * 7), "not a readable|expected 3"),
        (struct.pack("<5i", 0, 3, 1, 0, 5) + b"MOSz\0" + b"1" * 24, "version 4 is not read: save"),
    ],
)
def test_what_leads_astray(
    tmp_path: Path, content: bytes | Callable[[], bytes], message: str
) -> None:
    (tmp_path / "a.mat").write_bytes(content() if callable(content) else content)
    with pytest.raises(AgiqaError, match=rf"a\.mat: .*({message})") as caught:
        read_vector(tmp_path / "a.mat", "MOSz", 3)
    assert "\n" not in str(caught.value)


WHOLE = (
    HEAD + variable() + element(15, zlib.compress(variable(b"other"))),
    HEAD + element(15, zlib.compress(variable())),
)


@given(
    content=st.sampled_from(WHOLE),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=3),
)
@settings(max_examples=300)
def test_any_damage_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, damage: list[tuple[float, int]]
) -> None:
    """Or the numbers, where what was damaged is not read."""
    path = tmp_path_factory.getbasetemp() / "damaged.mat"
    path.write_bytes(content)
    assert read_vector(path, "MOSz", 3).tolist() == [1, 2, 3]
    damaged = bytearray(content)
    for where, byte in damage:
        damaged[int(where * (len(content) - 1))] = byte
    path.write_bytes(damaged)
    with suppress(AgiqaError):
        assert read_vector(path, "MOSz", 3).shape == (3,)
