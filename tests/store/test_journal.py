import json
import logging
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store.ledger.journal import (
    DamagedLine,
    Journal,
    JournalCheck,
    Row,
    check_journal,
)

A, B, C, D, E = (letter * 64 for letter in "abcde")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    path.touch()
    journal = Journal(path)
    journal.acknowledge(0, [A, B], [10, 11])
    journal.acknowledge(2, [C], [12])
    return path


def load(path: Path) -> Journal:
    journal = Journal(path)
    journal.refresh()
    return journal


def test_every_line_is_json_and_says_where_rows_lie(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["first"] for line in lines] == [0, 2]
    journal = load(path)
    assert journal.rows == {A: Row(0, 10), B: Row(1, 11), C: Row(2, 12)}
    assert journal.next_position == 3


def test_every_torn_tail_is_ignored_and_cut_off_by_the_next_write(path: Path) -> None:
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        journal = load(path)
        assert set(journal.rows) == {A, B}
        assert journal.next_position == 2
        journal.acknowledge(2, [C], [12])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("tail", [b"\0" * 512, b"garbage\n", b'{"check":"00000000","first":3}\n'])
def test_a_tail_of_garbage_is_no_row(path: Path, tail: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    journal = load(path)
    assert set(journal.rows) == {A, B, C}
    journal.drop([B])
    assert path.read_bytes().startswith(whole + b'{"check"')
    added = path.read_bytes()[len(whole) :]
    assert added.endswith(b"]}\n")
    assert added.count(b"\n") == 1
    assert set(load(path).rows) == {A, C}


def test_no_flipped_bit_passes_for_a_row(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = path.read_bytes()
    truth = load(path).rows
    first = whole.index(b"\n") + 1
    for place in range(len(whole)):
        for bit in (1, 64):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                rows = load(path).rows
            assert rows.items() <= truth.items()
            if place < first - 1:  # in a line with a valid one after it: never silent
                assert set(rows) == {C}
                assert "damaged line at byte 0" in caplog.text


@pytest.mark.parametrize(
    "entry",
    [
        [], 7, {}, {"dropped": "a"}, {"dropped": [A, 1]}, {"dropped": [A], "first": 1},
        {"first": 3, "ids": [D], "crc32": []}, {"first": 3, "ids": [D], "crc32": [1.0]},
        {"first": 3, "ids": [D], "crc32": [-1]}, {"first": 3, "ids": [D], "crc32": [2**32]},
        {"first": -1, "ids": [D], "crc32": [1]}, {"first": True, "ids": [D], "crc32": [1]},
        {"first": 2**40, "ids": [D], "crc32": [1]}, {"first": "3", "ids": [D], "crc32": [1]},
        {"first": 3, "ids": D, "crc32": [1]}, {"first": 3, "ids": ["D" * 64], "crc32": [1]},
        {"first": 3, "ids": ["d"], "crc32": [1]}, {"first": 3, "ids": {D: 1}, "crc32": [1]},
        {"first": 3, "ids": [D], "crc32": [1], "more": 1}, {"ids": [D], "crc32": [1]},
    ],
)  # fmt: skip
def test_a_sound_line_that_says_something_else_is_damaged(path: Path, entry: object) -> None:
    body = json.dumps(entry, separators=(",", ":")).encode()
    line = b'{"check":"%08x",%b\n' % (zlib.crc32(b"{" + body[1:]), body[1:])
    path.write_bytes(path.read_bytes() + line)
    assert set(load(path).rows) == {A, B, C}
    assert len(check_journal(path).damaged) == 1


@pytest.mark.parametrize("bomb", [b"\n" * 10**6, b"[" * 10**6 + b"\n"])
def test_what_is_no_journal_takes_no_time(path: Path, bomb: bytes) -> None:
    path.write_bytes(bomb)
    with suppress(AgiqaError):
        assert load(path).rows == {}
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(AgiqaError, match="a journal of at most 1 GiB, found 1,099,511,627,776 by"):
        load(path)


def test_a_reader_takes_in_what_a_writer_added(path: Path) -> None:
    reader, writer = load(path), load(path)
    writer.acknowledge(3, [D], [13])
    assert D not in reader.rows
    reader.refresh()
    assert reader.rows == writer.rows


def test_a_dropped_row_can_be_written_again(path: Path) -> None:
    journal = load(path)
    journal.drop([A])
    journal.acknowledge(3, [A], [99])
    assert load(path).rows[A] == Row(3, 99)


def test_a_journal_that_was_replaced_by_a_shorter_one_is_read_anew(path: Path) -> None:
    journal = load(path)
    path.write_bytes(b"")
    journal.refresh()
    assert journal.rows == {}
    assert journal.next_position == 0


def test_a_check_names_every_damaged_line_and_the_rows_it_named(path: Path) -> None:
    Journal(path).refresh()
    journal = load(path)
    journal.drop([C])
    journal.acknowledge(3, [D, E], [13, 14])
    lines = path.read_bytes().splitlines(keepends=True)
    assert check_journal(path) == JournalCheck(4, (), 0)
    starts = [sum(map(len, lines[:number])) for number in range(4)]
    for number, rows in enumerate((2, 1, 0, None)):  # the last one's rows nobody can tell
        bad = lines.copy()
        bad[number] = bad[number][:-4] + b"!" + bad[number][-3:]
        path.write_bytes(b"".join(bad))
        assert check_journal(path) == JournalCheck(
            4, (DamagedLine(number + 1, starts[number], rows),), 0
        )
    path.write_bytes(b"".join(bad[:3]) + lines[3][:-1] + b"\x8a")  # the end of the line flipped
    assert [line.number for line in check_journal(path).damaged] == [4]


def test_a_torn_tail_is_no_damage(path: Path) -> None:
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first + 1, len(whole)):
        path.write_bytes(whole[:length])
        assert check_journal(path) == JournalCheck(1, (), length - first)


def test_damaged_lines_are_forgotten_and_readers_start_over(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"aaaa", b"qaaa"))
    reader, writer = load(path), load(path)
    writer.forget_damaged()
    assert check_journal(path) == JournalCheck(1, (), 0)
    writer.acknowledge(3, [D], [13])
    caplog.clear()
    reader.refresh()
    assert reader.rows == writer.rows == {C: Row(2, 12), D: Row(3, 13)}
    assert not caplog.text
