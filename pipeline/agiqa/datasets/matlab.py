"""One vector out of a MATLAB file (.mat), or out of a text file with a number a line."""

from pathlib import Path

import numpy as np

from agiqa.errors import AgiqaError, one_line, some


def read_vector(path: Path, key: str, count: int) -> np.ndarray:
    """The numbers under `key`, or of a .txt all there are: `(count,)` float64, all finite.

    Raises:
        AgiqaError: not such a file, no such key, or not so many finite numbers.
    """
    values = _text(path) if path.suffix.lower() == ".txt" else _matlab(path, key)
    if values.size != count or max(values.shape, default=0) != count:
        shape = " x ".join(map(str, values.shape))
        raise AgiqaError(f"{path}: expected {count:,} numbers, found {shape}: download it again")
    values = values.reshape(-1).astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        rows = some([str(row + 1) for row in wrong])
        raise AgiqaError(f"{path}: expected finite numbers; those of row {rows} are not")
    return values


def _matlab(path: Path, key: str) -> np.ndarray:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        names = [name for name, _, _ in whosmat(path)]
        if key not in names:
            raise AgiqaError(
                f"{path}: expected the key {key}; found {some(names) or 'none'}: take the file of "
                "the official download"
            )
        found = np.asarray(loadmat(path, variable_names=[key])[key])
    except NotImplementedError as error:  # what SciPy says of version 7.3
        raise AgiqaError(
            f"{path}: is a MATLAB 7.3 file (HDF5), which is not read here; the official one is of "
            "version 7 or earlier: save it in MATLAB with -v7"
        ) from error
    # What SciPy raises on damage, OSError included; it promises nothing.
    except (MatReadError, OSError, ValueError, TypeError, KeyError, EOFError, IndexError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise AgiqaError(f"{path}: cannot be read: {error.strerror}") from error
        raise AgiqaError(
            f"{path}: is not a readable MATLAB file ({one_line(error)}): download it again"
        ) from error
    if found.dtype.kind not in "fiu":
        raise AgiqaError(f"{path}: expected real numbers under {key}, found {found.dtype}")
    return found


def _text(path: Path) -> np.ndarray:
    try:
        return np.array([float(word) for word in path.read_text("utf-8-sig").split()])
    except OSError as error:
        raise AgiqaError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise AgiqaError(
            f"{path}: expected one number a line ({one_line(error)}): download it again"
        ) from error
