from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from agiqa.datasets.matlab import read_vector
from agiqa.errors import AgiqaError

SCORES = np.array([3.00820892, 2.5, 1.0])


@pytest.mark.parametrize("version", ["5", "4"])
@pytest.mark.parametrize("compress", [False, True])
def test_columns_and_rows(tmp_path: Path, version: str, compress: bool) -> None:
    path = tmp_path / "a.mat"
    for shape in ((3, 1), (1, 3)):
        savemat(
            path,
            {"other": [1.0], "MOSz": SCORES.reshape(shape)},
            format=version,
            do_compression=compress and version == "5",
        )
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


@pytest.mark.parametrize("content", [b"", b"no MAT file", b"\x00" * 200])
def test_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(AgiqaError, match=r"a.mat: is not a readable MATLAB file .*again"):
        read_vector(tmp_path / "a.mat", "MOSz", 3)


def test_cut_short(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"MOSz": np.linspace(1, 3, 2400)})
    whole = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AgiqaError, match=r"a.mat: is not a readable MATLAB file"):
        read_vector(tmp_path / "a.mat", "MOSz", 2400)
