"""Files that are written whole: what they may replace, and what stays."""

import os
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.whole_files import require_writable, require_writable_folder, write_file


def test_a_link_leads_to_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far/scores.csv", tmp_path / "link.csv"
    link.symlink_to(target)  # which is not there yet
    for content in (b"first", b"second"):
        require_writable(link)
        write_file(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content


def test_a_link_to_a_write_protected_file_is_replaced(tmp_path: Path) -> None:
    """As DVC keeps its cache (`cache.type symlink`), which holds other versions of the data."""
    (tmp_path / "cached").write_bytes(b"kept")
    (tmp_path / "cached").chmod(0o444)
    (tmp_path / "out.csv").symlink_to("cached")
    write_file(tmp_path / "out.csv", b"new")
    assert (tmp_path / "cached").read_bytes() == b"kept"
    assert (tmp_path / "out.csv").read_bytes() == b"new"


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_regular_file_stays(tmp_path: Path, linked: bool) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path, kind in ((pipe, "a pipe or device"), (folder, "a folder")):
        name = tmp_path / f"link-to-{path.name}" if linked else path
        if linked:
            name.symlink_to(path)
        for write in (require_writable, write_file):
            with pytest.raises(AgiqaError, match=f"found {kind}, which stays as it is"):
                write(name)
    assert pipe.is_fifo()
    assert folder.is_dir()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc")
def test_where_nothing_can_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgiqaError, match=r"x.csv: cannot write there \(.+\): choose another file"):
        require_writable(Path("/proc/x.csv"))
    for folder in (Path("/proc/x"), tmp_path / "file/x"):
        with pytest.raises(AgiqaError, match=r"x: cannot write there \(.+\): choose another fold"):
            require_writable_folder(folder)
    with pytest.raises(AgiqaError, match=r"x.csv: expected the folder .*none, found none: make it"):
        require_writable(tmp_path / "none/x.csv")
    require_writable_folder(tmp_path / "new/er")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
