"""Ledgers of a stranger, here and at URLs: nothing outside them is read, nothing at all written,
fields of the wrong type are one line, and rows are whole or absent."""

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf, add_shelf
from agiqa.store.ledger.lock import writer_of
from agiqa.store.ledger.shelf_check import check_shelf, repair_shelf
from agiqa.store.shared.segments import SegmentError, build, parse
from agiqa.store.upkeep.stores import read_shelf_store
from kit.spoilt_stores import (
    MEGABYTES,
    SECONDS,
    SECRET,
    STRANGE,
    edit,
    replace_by_link,
    replace_by_pipe,
)
from kit.stored_rows import make_ids, make_vectors

ROWS, WIDTH = 300, 8
IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, WIDTH)
FINGERPRINT = {"extractor": "lmm", "prompt": {"text": "a"}}
Attack = Callable[..., Any]


def good_shelf(ledger: Path, section: int = 0) -> Path:
    shelf = Shelf.open(ledger, FINGERPRINT, WIDTH, section=section)
    with shelf.writer() as writer:
        writer.add(IDS, VECTORS)
    return shelf.folder


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """All names below a folder, with when and how large."""
    paths = [folder, *folder.rglob("*")]
    return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in paths}


def append_line(shelf: Path, entry: object) -> None:
    body = json.dumps(entry, separators=(",", ":")).encode()
    line = b'{"check":"%08x",%b\n' % (zlib.crc32(body), body[1:])
    with (shelf / "journal.jsonl").open("ab") as file:
        file.write(line)


def note(shelf: Path, **changed: object) -> None:
    owner = {"pid": 1, "host": "there", "since": "2026-01-01"} | changed
    (shelf / "owner.json").write_text(json.dumps(owner))


def lock_over(shelf: Path, victim: Path) -> None:
    """Whoever takes this lock empties what it links to."""
    note(shelf)
    replace_by_link(shelf / "writer.lock", victim)


def claimed_rows(shelf: Path) -> None:
    """A journal of 200,000 rows of 8 MiB that lie nowhere."""
    edit(shelf / "fingerprint.json", lambda tree: tree.update(width=1 << 22))
    for start in (0, 10**5):
        ids = [f"{row:064x}" for row in range(start, start + 10**5)]
        append_line(shelf, {"first": 10**6 + start, "ids": ids, "crc32": [7] * 10**5})


KINDS = {
    "pipe for a journal": lambda s: replace_by_pipe(s / "journal.jsonl"),
    "link for a journal": lambda s: replace_by_link(s / "journal.jsonl", SECRET),
    "endless journal": lambda s: os.truncate(s / "journal.jsonl", 1 << 40),
    "pipe for the description": lambda s: replace_by_pipe(s / "fingerprint.json"),
    "link for the description": lambda s: replace_by_link(s / "fingerprint.json", SECRET),
    "endless description": lambda s: os.truncate(s / "fingerprint.json", 1 << 40),
    "deep description": lambda s: (s / "fingerprint.json").write_text("[" * 10**5),
    "link for the array": lambda s: replace_by_link(s / "vectors", s / "aside"),
    "link for a chunk": lambda s: replace_by_link(s / "vectors/c.0.0", SECRET),
    "pipe for a chunk": lambda s: replace_by_pipe(s / "vectors/c.1.0"),
    "link for a section": lambda s: (s / "part-1").symlink_to(s),
    "claimed rows": claimed_rows,
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
    whole = (shelf / "vectors/c.0.0").read_bytes()
    (shelf / "vectors/c.0.0").write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    for name in ("vectors/c.0.0", "journal.jsonl", "fingerprint.json", "vectors/zarr.json"):
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
    good_shelf(ledger, section=1)
    (shelf / "writer.lock").unlink()
    note(shelf)  # of a writer on another machine, whose lock does not show here
    before = state(ledger)
    own = {"AGIQA_STORE": str(ledger)}
    for command in (["ls"], ["show", shelf], ["verify"], ["diff", shelf, shelf]):
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
        found = add_shelf(
            source, Shelf.open(target, source.fingerprint, source.width, source.dtype)
        )
        assert found.rows == store.rows
        if found.added:
            (made,) = target.glob("lmm-*")
            ids = sorted(Shelf.at(made).ids())
            np.testing.assert_array_equal(
                Shelf.at(made).read(ids), VECTORS[[IDS.index(name) for name in ids]]
            )
            return True
    return False


def test_every_field_of_a_description_and_a_note(tmp_path: Path) -> None:
    shelf = good_shelf(tmp_path / "theirs")
    path = shelf / "fingerprint.json"
    whole = path.read_text()
    for number, field in enumerate([*json.loads(whole), "stranger"]):
        for place, value in enumerate(STRANGE):
            edit(path, lambda tree, field=field, value=value: tree.update({field: value}))
            if json.loads(path.read_text()) == json.loads(whole):
                continue
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


def test_every_field_of_a_journal_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    shelf = good_shelf(tmp_path / "theirs")
    path = shelf / "journal.jsonl"
    whole = path.read_bytes()
    line = {"first": 512, "ids": [IDS[0], "f" * 64], "crc32": [1, 2]}
    for entry in (line, {"dropped": IDS[:1]}):
        for field in [*entry, "stranger"]:
            for value in [*STRANGE, [IDS[0], True], [2**32], [-1], [0.5], ["F" * 64]]:
                append_line(shelf, entry | {field: value})
                report, rows = check_shelf(shelf), Shelf.at(shelf).ids()
                left = sorted(rows.difference(*(each.image_ids for each in report.findings)))
                found = Shelf.at(shelf).read(left)
                np.testing.assert_array_equal(found, VECTORS[[IDS.index(name) for name in left]])
                assert len(left) >= ROWS - 1, (field, value)
                path.write_bytes(whole)
            append_line(shelf, entry | {field: value})
            assert look_in_every_way(shelf, tmp_path / "ours")
            shutil.rmtree(tmp_path / "ours")
            path.write_bytes(whole)


def sealed(header: dict[str, Any], data: bytes) -> tuple[str, bytes]:
    """A segment's name and bytes, its checksum right."""
    text = json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + data
    return f"{hashlib.sha256(whole).hexdigest()}-{ROWS}.safetensors", whole


def test_every_field_of_a_segment() -> None:
    digest = "d" * 64
    name, whole = build(digest, IDS, VECTORS)
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    values = [*STRANGE, "F32", "I64", "BF16", "F8_E4M3", [0, 2**63], [2**62, 2**62], [-1, 8]]
    tried = 0
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
                given = sealed(changed, data)
                with pytest.raises(SegmentError):
                    parse(*given, digest, WIDTH, "float16")
                tried += 1
    assert tried > 300
    ids, vectors = parse(name, whole, digest, WIDTH, "float16")
    assert ids == IDS
    np.testing.assert_array_equal(vectors, VECTORS)
    for text in (b"[" * 10**5, b'{"a":' * 10**5, b"", b"{}", b'{"a": NaN}'):
        data = len(text).to_bytes(8, "little") + text
        name = f"{hashlib.sha256(data).hexdigest()}-1.safetensors"
        with pytest.raises(SegmentError):
            parse(name, data, digest, WIDTH, "float16")
    foreign = safetensors.numpy.save({"vectors": VECTORS})
    name = f"{hashlib.sha256(foreign).hexdigest()}-{ROWS}.safetensors"
    with pytest.raises(SegmentError, match="something else than rows"):
        parse(name, foreign, digest, WIDTH, "float16")
