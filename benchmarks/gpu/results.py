"""OUT/results.jsonl: a line a step, which one run at a time writes and a stopped run goes on from.

A line is written whole and at once; what a kill cut off in its middle is cut away, with a word, and
its step runs again. Anything else that is no step's line is refused: it may be somebody's figures.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from parts import InputError

MOST = 64 << 20  # bytes
SAME = ("card", "python", "torch", "transformers", "tiny")  # of all lines of one folder
Row = dict[
    str, Any
]  # stage, step, status (0: done), machine; of what ran: seconds, command, output


class Results:
    """The lines of one folder, held against other runs while it lasts.

    Raises:
        InputError: another run holds it, it cannot be written, or a line is not a step's.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "results.jsonl"
        if self.path.exists() and not self.path.is_file():
            raise InputError(
                f"{self.path}: expected a file, found something else: give another OUT"
            )
        try:
            self._file = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.rows = self._read()
        except OSError as error:
            self._file.close()
            raise InputError(
                f"{folder}: expected no other run, found one that is under way, or a step of a "
                f"killed one ({error.strerror}): wait for its end, or give another OUT"
            ) from None
        except InputError:
            self._file.close()
            raise

    def fileno(self) -> int:
        """Give the descriptor that holds the folder, for steps that may outlive a killed run."""
        return self._file.fileno()

    def close(self) -> None:
        """Let other runs in, once no step holds the descriptor any more."""
        self._file.close()

    def _read(self) -> list[Row]:
        if os.fstat(self._file.fileno()).st_size > MOST:
            raise InputError(f"{self.path}: expected at most 64 MiB, found more: give another OUT")
        self._file.seek(0)
        data = self._file.readall()
        lines = data.split(b"\n")
        rest, rows = lines.pop(), [self._row(*line) for line in enumerate(lines, 1)]
        if not rest:
            return rows
        try:
            rows.append(self._row(len(lines) + 1, rest))
            self._file.write(b"\n")
        except InputError:
            self._file.truncate(len(data) - len(rest))
            print(f"{self.path}: its last line was cut off by a stop: the step runs again")
        return rows

    def _row(self, number: int, line: bytes) -> Row:
        try:
            row = json.loads(line.decode("utf-8"))
            if not all(isinstance(row[key], str) for key in ("stage", "step")):
                raise TypeError
            if not isinstance(row["status"], str | int) or not isinstance(row["machine"], dict):
                raise TypeError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError(
                f"{self.path}, line {number}: expected a step's JSON line, found {line[:40]!a}: "
                "take the line out, and its step runs again, or give another OUT"
            ) from None
        return dict(row)

    def require_same(self, machine: Row) -> None:
        """Refuse a folder whose figures are another card's, of other versions, or of `--tiny`."""
        for row in self.rows:
            other = row["machine"]
            unlike = [key for key in SAME if _alike(other, key) != _alike(machine, key)]
            if "seconds" in row and unlike:
                there = ", ".join(f"{key} {_alike(other, key)!a}" for key in unlike)
                here = ", ".join(f"{key} {_alike(machine, key)!a}" for key in unlike)
                raise InputError(
                    f"{self.path}: expected steps of this machine ({here}), found those of another "
                    f"({there}): give another OUT"
                )

    @property
    def done(self) -> set[tuple[str, str]]:
        """Tell which steps need not run again."""
        return {(row["stage"], row["step"]) for row in self.rows if row["status"] == 0}

    def add(self, row: Row) -> None:
        """Write a line, to the disk.

        Raises:
            InputError: it cannot be written; the line is printed instead.
        """
        line = (json.dumps(row) + "\n").encode()
        end = self._file.seek(0, os.SEEK_END)
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            print(line.decode(), end="")
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}): make room, put the line above "
                "at its end, and give the same command again"
            ) from None
        self.rows.append(row)


def _alike(machine: Row, key: str) -> str:
    """Give what has to be the same, of the card its name without driver and memory."""
    if key == "tiny":
        return "yes" if machine.get(key) else "no"
    value = str(machine.get(key, ""))
    return value.partition(",")[0] if key == "card" else value
