import logging
import sys

import pytest

from agiqa.core import progress
from agiqa.core.progress import track


class Terminal:
    """A standard error that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_plain_lines_away_from_a_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    caplog.set_level(logging.INFO)
    assert list(track(["a", "b", "c"], "Work", unit=4, total=10)) == ["a", "b", "c"]
    first, second, last = (record.message for record in caplog.records)
    assert first.startswith("Work: 4 of 10, ")
    assert first.endswith(" s left")
    assert second.startswith("Work: 8 of 10, ")
    assert last.startswith("Work: 10 done in ")


def test_short_work_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(track(range(3), "Work")) == [0, 1, 2]
    assert caplog.records == []


def test_a_bar_with_rate_and_time_left_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    assert list(track(range(3), "Work", unit=4, total=10)) == [0, 1, 2]
    assert "Work" in terminal.text
    assert "10/10" in terminal.text
    assert "/s" in terminal.text
