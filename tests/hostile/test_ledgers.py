"""Ledgers of a stranger, here and at URLs: nothing outside them is read, nothing at all written,
fields of the wrong type are one line, and rows are whole or absent."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf, digest
from agiqa.store.ledger.lock import writer_of
from agiqa.store.ledger.segments import Kind, Layout
from agiqa.store.upkeep.merge import add_vector
from agiqa.store.upkeep.stores import read_shelf_store
from agiqa.store.upkeep.verification import check_shelf, repair_shelf
from kit.spoilt_stores import (
    MEGABYTES,
    SECONDS,
    SECRET,
    STRANGE,
    edit,
    replace_by_link,
    replace_by_pipe,
)
from kit.stored_rows import add_rows, make_ids, make_vectors, right_rows

ROWS, WIDTH = 300, 8
IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, WIDTH)
FINGERPRINT = {"extractor": "lmm", "prompt": {"text": "a"}}
Attack = Callable[..., Any]


def good_shelf(ledger: Path, rank: int = 0) -> Path:
    shelf = Shelf.open(ledger, FINGERPRINT, WIDTH, rank=rank)
    add_rows(shelf, IDS, VECTORS)
    return shelf.folder


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """All names below a folder, with when and how large."""
    paths = [folder, *folder.rglob("*")]
    return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in paths}


def segment(shelf: Path) -> Path:
    return next((shelf / "segments").glob("*.safetensors"))


def note(shelf: Path, **changed: object) -> None:
    owner = {"pid": 1, "host": "there", "since": "2026-01-01"} | changed
    (shelf / "owner.json").write_text(json.dumps(owner))


def lock_over(shelf: Path, victim: Path) -> None:
    """Whoever takes this lock empties what it links to."""
    note(shelf)
    replace_by_link(shelf / "writer.lock", victim)


def claimed_rows(shelf: Path, width: int = 1 << 22) -> None:
    """A segment that says to have 65,536 rows of 8 MiB, which lie nowhere."""
    edit(shelf / "fingerprint.json", lambda tree: tree.update(width=width))
    segment(shelf).unlink()
    layout = Layout(Kind(digest(FINGERPRINT), width, "float16"), 1 << 16)
    with (shelf / "segments" / f"{'0' * 64}-65536.safetensors").open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.size - (32 << 16))
        file.seek(0, os.SEEK_END)
        file.write(b"".join(row.to_bytes(32, "big") for row in range(1 << 16)))


KINDS = {
    "pipe for the description": lambda s: replace_by_pipe(s / "fingerprint.json"),
    "link for the description": lambda s: replace_by_link(s / "fingerprint.json", SECRET),
    "endless description": lambda s: os.truncate(s / "fingerprint.json", 1 << 40),
    "deep description": lambda s: (s / "fingerprint.json").write_text("[" * 10**5),
    "link for the segments": lambda s: replace_by_link(s / "segments", s / "aside"),
    "file for the segments": lambda s: (
        (s / "segments").rename(s / "x") and (s / "segments").touch()
    ),
    "link for a segment": lambda s: replace_by_link(segment(s), SECRET),
    "link to itself": lambda s: replace_by_link(segment(s), segment(s)),
    "pipe for a segment": lambda s: replace_by_pipe(segment(s)),
    "folder for a segment": lambda s: (
        segment(s).rename(s / "x") and (s / "segments" / f"{'0' * 64}-9.safetensors").mkdir()
    ),
    "claimed rows": claimed_rows,
    "rows that are not there": lambda s: claimed_rows(s, 1024),
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_outside_is_read_and_nothing_written(
    kind: str, attack: Attack, tmp_path: Path
) -> None:
    ledger = tmp_path / "theirs"
    KINDS[kind](good_shelf(ledger))
    before = state(ledger)
    limits = {"seconds": 2 * SECONDS, "megabytes": MEGABYTES}
    merged = attack("cache", "merge", ledger, **limits)
    assert "lmm-" in merged.err
    assert merged.error
    for command in (["verify"], ["verify", "--json"], ["ls"], ["gc", "--dry-run"]):
        outcome = attack("cache", *command, AGIQA_STORE=str(ledger), **limits)
        assert outcome.status == (command[0] == "verify")
        assert SECRET not in outcome.opened
    assert state(ledger) == before


def test_a_lock_or_a_partial_name_that_is_a_link_empties_nothing(
    attack: Attack, tmp_path: Path
) -> None:
    ledger, victim = tmp_path / "theirs", tmp_path / "victim"
    victim.write_text("precious")
    shelf = good_shelf(ledger)
    lock_over(shelf, victim)
    whole = segment(shelf).read_bytes()
    segment(shelf).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for name in (f"segments/{segment(shelf).name}", "fingerprint.json"):
        (shelf / f"{name}.partial").symlink_to(victim)
    for command in (["ls"], ["show", shelf], ["verify"], ["verify", "--repair"], ["gc", "--yes"]):
        attack("cache", *command, AGIQA_STORE=str(ledger))
        assert victim.read_text() == "precious", command
    (shelf / "writer.lock").unlink()
    (shelf / "owner.json").unlink()
    (shelf / "owner.json").symlink_to(victim)
    attack("cache", "verify", "--repair", AGIQA_STORE=str(ledger))
    assert victim.read_text() == "precious"
    (shelf / "owner.json").unlink()
    repaired = attack("cache", "verify", "--repair", AGIQA_STORE=str(ledger))
    assert repaired.status == 0, repaired.out
    assert victim.read_text() == "precious"
    assert len(Shelf.at(shelf).ids()) == ROWS - 1


def test_a_ledger_that_is_looked_at_stays_as_it_is(attack: Attack, tmp_path: Path) -> None:
    ledger = tmp_path / "theirs"
    shelf = good_shelf(ledger)
    good_shelf(ledger, rank=1)
    (shelf / "writer.lock").unlink()
    note(shelf)  # of a writer on another machine, whose lock does not show here
    before = state(ledger)
    own = {"AGIQA_STORE": str(ledger)}
    for command in (["ls"], ["show", shelf], ["verify"]):
        assert attack("cache", *command, **own).status == 0
    assert attack("cache", "merge", ledger).status == 0
    assert state(ledger) == before


def look_in_every_way(shelf: Path, target: Path) -> bool:
    """Whether rows came out, all of them right; anything but an AgiqaError fails the test."""
    check_shelf(shelf)
    store = read_shelf_store(shelf)
    writer_of(shelf)
    with suppress(AgiqaError):
        source = Shelf.at(shelf)
        found = add_vector(source, target)
        assert found.rows == store.rows
        if found.added:
            (made,) = target.glob("lmm-*")
            assert right_rows(Shelf.at(made), IDS, VECTORS) == Shelf.at(made).ids()
            return True
    return False


def test_every_field_of_a_description_and_a_note(tmp_path: Path) -> None:
    shelf = good_shelf(tmp_path / "theirs")
    path = shelf / "fingerprint.json"
    whole = path.read_text()
    for number, field in enumerate([*json.loads(whole), "stranger"]):
        for place, value in enumerate(STRANGE):
            edit(path, lambda tree, field=field, value=value: tree.update({field: value}))
            if json.loads(path.read_text()) == json.loads(whole) or (field, value) == ("layout", 1):
                continue  # layout 1 is that of buckets
            assert not look_in_every_way(shelf, tmp_path / f"{number}-{place}"), (field, value)
            with suppress(AgiqaError):
                repair_shelf(shelf)
            path.write_text(whole)
    for field in ("pid", "host", "since"):
        for value in STRANGE:
            note(shelf, **{field: value})
            assert len(str(writer_of(shelf))) < 200
    (shelf / "owner.json").write_text("[" * 10**5)
    assert look_in_every_way(shelf, tmp_path / "last")


def sealed(header: dict[str, Any], data: bytes) -> tuple[str, bytes]:
    """A segment's name and bytes, its checksum right."""
    text = json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + data
    return f"{hashlib.sha256(whole).hexdigest()}-{ROWS}.safetensors", whole


def test_every_field_of_a_segment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever its header says, a segment is refused, or its rows are right."""
    caplog.set_level(logging.ERROR)
    shelf = good_shelf(tmp_path)
    path = segment(shelf)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    values = [*STRANGE, "F32", "I64", "BF16", "F8_E4M3", [0, 2**63], [2**62, 2**62], [-1, 8]]
    tried = refused = 0
    path.unlink()
    for tensor in (*header, "stranger"):
        fields = [None] if tensor == "stranger" else [None, *header[tensor]]
        for field in fields:
            for value in values:
                changed = json.loads(json.dumps(header))
                if field is None:
                    changed[tensor] = value
                else:
                    changed[tensor][field] = value
                if changed == header:
                    continue
                name, content = sealed(changed, data)
                refused += not rows_of_file(shelf, name, content)
                tried += 1
    assert tried > 300
    assert refused > tried - 20  # but where a few bytes differ
    for text in (b"[" * 10**5, b'{"a":' * 10**5, b"", b"{}", b'{"a": NaN}'):
        content = len(text).to_bytes(8, "little") + text
        name = f"{hashlib.sha256(content).hexdigest()}-1.safetensors"
        assert not rows_of_file(shelf, name, content)
    foreign = safetensors.numpy.save({"vectors": VECTORS})
    name = f"{hashlib.sha256(foreign).hexdigest()}-{ROWS}.safetensors"
    assert not rows_of_file(shelf, name, foreign)
    assert rows_of_file(shelf, path.name, whole) == ROWS


def rows_of_file(shelf: Path, name: str, content: bytes) -> int:
    """How many rows are read where this is the shelf's only segment; all of them are right."""
    (shelf / "segments" / name).write_bytes(content)
    opened = Shelf.at(shelf)
    there = right_rows(opened, IDS, VECTORS)
    check_shelf(shelf)
    (shelf / "segments" / name).unlink()
    return len(there)
