"""Files of torch.save: tensors come out; what would unpack to more, or run, is refused."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from agiqa.core.weight_files import load_torch_file


def again(path: Path, compress: int = zipfile.ZIP_STORED, twice: bool = False) -> None:
    """The archive again, compressed or with a record twice."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
        if twice:
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr(name, content)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_tensors_come_back(tmp_path: Path, old: bool, mapped: bool) -> None:
    saved = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
    loaded = load_torch_file(tmp_path / "a.pt", mapped)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())


def test_what_would_become_large(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(torch.zeros(20_000_000), path)
    with pytest.raises(ValueError, match=r"80,.* bytes, the most that such a file has are 1,000"):
        load_torch_file(path, most=1000)
    again(path, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match=r"compressed records, which torch\.save never writes"):
        load_torch_file(path)
    torch.save(torch.zeros(3), path)
    again(path, twice=True)
    with pytest.raises(ValueError, match="two records of one name"):
        load_torch_file(path)


def test_code_does_not_run(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "the-code-has-run",))

    for old in (False, True):
        torch.save({"a": Runs()}, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
        with pytest.raises(pickle.UnpicklingError):
            load_torch_file(tmp_path / "a.pt")
    assert not (tmp_path / "the-code-has-run").exists()
