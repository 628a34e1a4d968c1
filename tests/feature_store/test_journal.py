import json
import logging
from pathlib import Path

import pytest

from agiqa.feature_store.ledger.journal import (
    DamagedLine,
    Journal,
    JournalCheck,
    Row,
    check_journal,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    path.touch()
    journal = Journal(path)
    journal.acknowledge(0, ["a", "b"], [10, 11])
    journal.acknowledge(2, ["c"], [12])
    return path


def load(path: Path) -> Journal:
    journal = Journal(path)
    journal.refresh()
    return journal


def test_every_line_is_json_and_says_where_rows_lie(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["first"] for line in lines] == [0, 2]
    journal = load(path)
    assert journal.rows == {"a": Row(0, 10), "b": Row(1, 11), "c": Row(2, 12)}
    assert journal.next_position == 3


def test_every_torn_tail_is_ignored_and_cut_off_by_the_next_write(path: Path) -> None:
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        journal = load(path)
        assert set(journal.rows) == {"a", "b"}
        assert journal.next_position == 2
        journal.acknowledge(2, ["c"], [12])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("tail", [b"\0" * 512, b"garbage\n", b'{"check":"00000000","first":3}\n'])
def test_a_tail_of_garbage_is_no_row(path: Path, tail: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    journal = load(path)
    assert set(journal.rows) == {"a", "b", "c"}
    journal.drop(["b"])
    assert path.read_bytes().startswith(whole + b'{"check"')
    added = path.read_bytes()[len(whole) :]
    assert added.endswith(b"]}\n")
    assert added.count(b"\n") == 1
    assert set(load(path).rows) == {"a", "c"}


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
                assert set(rows) == {"c"}
                assert "damaged line at byte 0" in caplog.text


def test_a_reader_takes_in_what_a_writer_added(path: Path) -> None:
    reader, writer = load(path), load(path)
    writer.acknowledge(3, ["d"], [13])
    assert "d" not in reader.rows
    reader.refresh()
    assert reader.rows == writer.rows


def test_a_dropped_row_can_be_written_again(path: Path) -> None:
    journal = load(path)
    journal.drop(["a"])
    journal.acknowledge(3, ["a"], [99])
    assert load(path).rows["a"] == Row(3, 99)


def test_a_journal_that_was_replaced_by_a_shorter_one_is_read_anew(path: Path) -> None:
    journal = load(path)
    path.write_bytes(b"")
    journal.refresh()
    assert journal.rows == {}
    assert journal.next_position == 0


def test_a_check_names_every_damaged_line_and_the_rows_it_named(path: Path) -> None:
    Journal(path).refresh()
    journal = load(path)
    journal.drop(["c"])
    journal.acknowledge(3, ["d", "e"], [13, 14])
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
    path.write_bytes(whole.replace(b'"a"', b'"q"'))
    reader, writer = load(path), load(path)
    writer.forget_damaged()
    assert check_journal(path) == JournalCheck(1, (), 0)
    writer.acknowledge(3, ["d"], [13])
    caplog.clear()
    reader.refresh()
    assert reader.rows == writer.rows == {"c": Row(2, 12), "d": Row(3, 13)}
    assert not caplog.text
