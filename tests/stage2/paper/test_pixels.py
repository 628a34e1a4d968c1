"""The pixel cache: decoded once, whole after a kill, never wrong bytes."""

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.images import decode, image_id
from agiqa.stage2.paper import inputs as pixels
from agiqa.stage2.paper.inputs import open_pixels, resized
from agiqa.store.ledger.lock import writer_lock
from kit.processes import process_id

SIZE = 16


@pytest.fixture
def files(write_images: Callable[..., Path]) -> dict[str, Path]:
    folder = write_images(*[f"{row:02d}.png" for row in range(20)])
    return {image_id(path): path for path in sorted(folder.iterdir())}


def _folder(ledger: Path) -> Path:
    (found,) = ledger.glob("pixels-*")
    return found


def _expected(files: dict[str, Path]) -> np.ndarray:
    return np.stack([resized(decode(path), SIZE) for path in files.values()])


def test_pixels_are_those_of_the_files_in_the_order_asked(
    files: dict[str, Path], tmp_path: Path
) -> None:
    found = open_pixels(files, SIZE, tmp_path / "ledger")
    assert len(found) == 20
    np.testing.assert_array_equal(found[np.arange(20)], _expected(files))
    backwards = dict(reversed(files.items()))
    again = open_pixels(backwards, SIZE, tmp_path / "ledger")
    np.testing.assert_array_equal(again[np.array([0, 19])], _expected(backwards)[[0, 19]])


def test_nothing_is_decoded_twice(files: dict[str, Path], tmp_path: Path) -> None:
    expected = _expected(files)
    ids = list(files)
    some = {name: files[name] for name in ids[:8]}
    open_pixels(some, SIZE, tmp_path / "ledger")
    for path in some.values():
        path.unlink()
    found = open_pixels(files, SIZE, tmp_path / "ledger")
    np.testing.assert_array_equal(found[np.arange(20)], expected)


def test_another_size_is_another_cache(files: dict[str, Path], tmp_path: Path) -> None:
    open_pixels(files, SIZE, tmp_path / "ledger")
    assert open_pixels(files, 8, tmp_path / "ledger")[np.arange(2)].shape == (2, 8, 8, 3)
    assert len(list((tmp_path / "ledger").iterdir())) == 2


def test_changed_and_broken_images_are_named_and_the_others_kept(
    files: dict[str, Path], tmp_path: Path
) -> None:
    paths = list(files.values())
    paths[3].write_bytes(paths[4].read_bytes())
    paths[5].unlink()
    with pytest.raises(
        AgiqaError, match=r"2 images are not as they were at prepare: .*03\.png: has"
    ) as caught:
        open_pixels(files, SIZE, tmp_path / "ledger")
    assert "does not exist" in str(caught.value)
    assert "\n" not in str(caught.value)
    records = (_folder(tmp_path / "ledger") / "rows.bin").read_bytes()
    assert sum(bytes.fromhex(name) in records for name in files) == 18


def test_links_of_a_stranger_are_not_followed(files: dict[str, Path], tmp_path: Path) -> None:
    open_pixels(files, SIZE, tmp_path / "ledger")
    folder, elsewhere = _folder(tmp_path / "ledger"), tmp_path / "elsewhere"
    (folder / "fingerprint.json").unlink()
    for name in ("pixels.u8", "rows.bin"):
        (folder / name).unlink()
        (folder / name).symlink_to(elsewhere)
        with pytest.raises(AgiqaError, match=f"{name}: expected a file, found a link"):
            open_pixels(files, SIZE, tmp_path / "ledger")
        assert not elsewhere.exists()
        (folder / name).unlink()
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    with pytest.raises(AgiqaError, match=r"expected a folder, found a link"):
        open_pixels(files, SIZE, tmp_path / "ledger")


def test_damaged_rows_are_decoded_again(
    files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_pixels(files, SIZE, tmp_path / "ledger")
    rows = _folder(tmp_path / "ledger") / "pixels.u8"
    with rows.open("rb+") as file:
        file.seek(5 * SIZE * SIZE * 3 + 7)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    found = open_pixels(files, SIZE, tmp_path / "ledger")
    np.testing.assert_array_equal(found[np.arange(20)], _expected(files))
    assert "1 damaged rows are decoded again" in caplog.text
    os.truncate(rows, 10 * SIZE * SIZE * 3 - 1)
    found = open_pixels(files, SIZE, tmp_path / "ledger")
    np.testing.assert_array_equal(found[np.arange(20)], _expected(files))
    assert "12 damaged rows" in caplog.text  # 11 lost at the end, and the one added there just now


def test_a_full_disk_is_one_line_and_loses_nothing(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "BATCH", 4)
    open_pixels(dict(list(files.items())[:4]), SIZE, tmp_path / "ledger")
    calls = []
    fsync = os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AgiqaError, match="No space left on device; free some space"):
        open_pixels(files, SIZE, tmp_path / "ledger")
    monkeypatch.setattr(os, "fsync", fsync)
    before = (_folder(tmp_path / "ledger") / "rows.bin").read_bytes()
    assert before
    found = open_pixels(files, SIZE, tmp_path / "ledger")
    np.testing.assert_array_equal(found[np.arange(20)], _expected(files))
    assert (_folder(tmp_path / "ledger") / "rows.bin").read_bytes().startswith(before)


KILLED = """
import sys, time
from pathlib import Path
from agiqa.stage2.paper import inputs as pixels
from agiqa.data.images import image_id

pixels.BATCH = 3
add = pixels._Cache._add
def slow(self, rows):
    add(self, rows)
    print(len(rows), flush=True)
    time.sleep(0.2)
pixels._Cache._add = slow
files = {image_id(p): p for p in sorted(Path(sys.argv[1]).iterdir())}
pixels.open_pixels(files, 16, Path(sys.argv[2]))
"""


def test_a_killed_decoding_goes_on(
    files: dict[str, Path], tmp_path: Path, python: list[str]
) -> None:
    folder = next(iter(files.values())).parent
    command = [*python, "-c", KILLED, str(folder), str(tmp_path / "ledger")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(2):
            process.stdout.readline()
        time.sleep(0.05)
        os.kill(process_id(process), signal.SIGKILL)
    rows = (_folder(tmp_path / "ledger") / "pixels.u8").stat().st_size // (SIZE * SIZE * 3)
    assert 6 <= rows < 20
    for path in list(files.values())[:6]:  # two batches were acknowledged: not wanted again
        shutil.copy(path, tmp_path / path.name)
        path.unlink()
    found = open_pixels(files, SIZE, tmp_path / "ledger")
    for path in list(files.values())[:6]:
        shutil.copy(tmp_path / path.name, path)
    np.testing.assert_array_equal(found[np.arange(20)], _expected(files))


def test_rows_without_a_record_do_not_count(files: dict[str, Path], tmp_path: Path) -> None:
    some = dict(list(files.items())[:4])
    open_pixels(some, SIZE, tmp_path / "ledger")
    with (_folder(tmp_path / "ledger") / "pixels.u8").open("ab") as file:
        file.write(b"\0" * 5000)  # torn, by a kill before the record
    found = open_pixels(files, SIZE, tmp_path / "ledger")
    np.testing.assert_array_equal(found[np.arange(20)], _expected(files))


def test_a_second_writer_is_refused_and_a_foreign_folder_too(
    files: dict[str, Path], tmp_path: Path
) -> None:
    some = dict(list(files.items())[:4])
    open_pixels(some, SIZE, tmp_path / "ledger")
    folder = _folder(tmp_path / "ledger")
    with writer_lock(folder):
        open_pixels(some, SIZE, tmp_path / "ledger")  # reading takes no lock
        with pytest.raises(AgiqaError, match="expected to be the only writer"):
            open_pixels(files, SIZE, tmp_path / "ledger")
    text = (folder / "fingerprint.json").read_text()
    (folder / "fingerprint.json").write_text(text.replace('"size": 16', '"size": 17'))
    with pytest.raises(AgiqaError, match="size = 16, found 17"):
        open_pixels(some, SIZE, tmp_path / "ledger")
    (folder / "fingerprint.json").write_text("{")
    with pytest.raises(AgiqaError, match="damaged JSON; move"):
        open_pixels(some, SIZE, tmp_path / "ledger")
