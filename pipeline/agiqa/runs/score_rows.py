"""Scores as they come, in a file of SQLite: none is lost by a kill, none has to be in memory.

Where a million images are scored, the rows are kept beside the file that they are for
(`scores.csv.unfinished`) until it is whole; the same command goes on from there.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from agiqa.core.errors import AgiqaError, one_line, printable
from agiqa.core.json_text import json_text
from agiqa.core.trees import parse_json
from agiqa.data.images import BadImage

UNFINISHED = ".unfinished"
TABLES = """
CREATE TABLE IF NOT EXISTS about (text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    number INTEGER PRIMARY KEY, -- in the order of the input
    stamp TEXT NOT NULL, -- by which the same image is known
    score REAL, -- NULL: it could not be scored
    content TEXT NOT NULL -- its row as JSON
);
"""


@dataclass(frozen=True)
class NumberedRow:
    """What is kept of one image: its row, or why there is none."""

    number: int  # in the order of the input
    stamp: str  # changes with the image
    score: float | None  # None: it could not be scored
    content: dict[str, Any]


class ScoreRows:
    """Rows by the number of their image, in a file or in memory."""

    def __init__(self, path: Path | None, about: str) -> None:
        """Open the file, or rows in memory.

        Args:
            path: what the rows are written for; they are kept beside it. None: in memory.
            about: the run and the options that made them.

        Raises:
            AgiqaError: rows of other options lie there, or no rows.
        """
        self.path = None if path is None else path.with_name(path.name + UNFINISHED)
        self._finished = False
        where = ":memory:" if self.path is None else os.fspath(self.path)
        try:
            self._rows = sqlite3.connect(where)
            self._rows.executescript(TABLES)
            kept = self._rows.execute("SELECT text FROM about").fetchone()
            if kept is None or not len(self):
                with self._rows:
                    self._rows.executescript("DELETE FROM about; DELETE FROM images")
                    self._rows.execute("INSERT INTO about VALUES (?)", (about,))
                kept = (about,)
        except sqlite3.Error as error:
            raise AgiqaError(
                f"{printable(where)}: expected unfinished scores, or a place to keep them "
                f"({one_line(error)}): remove it, or choose another file"
            ) from error
        if kept[0] != about:
            self.close()
            raise AgiqaError(
                f"{printable(where)}: holds unfinished scores of another run or other options: "
                "give the same ones again, or remove it"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the scores that were added stay in it. One without any is removed."""
        useless = self._finished or not len(self)
        self._rows.close()
        if self.path is not None and useless:
            with suppress(OSError):
                self.path.unlink()

    def finish(self) -> None:
        """Let the rows go as they are closed: what they were for has been written."""
        self._finished = True

    def has(self, number: int, stamp: str) -> bool:
        """Tell whether that image's row is there."""
        query = "SELECT 1 FROM images WHERE number = ? AND stamp = ?"
        return self._rows.execute(query, (number, stamp)).fetchone() is not None

    def add(self, rows: Iterable[NumberedRow]) -> None:
        """Keep rows, all or none of them.

        Raises:
            AgiqaError: the disk is full, or fails.
        """
        values = [
            (row.number, row.stamp, row.score, json_text(row.content, ascii_only=True))
            for row in rows
        ]
        try:
            with self._rows:
                self._rows.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", values)
        except sqlite3.Error as error:
            raise AgiqaError(
                f"{self.path}: expected room for scores, found: {one_line(error)}; free some space "
                "and run the same command again (finished scores are safe)"
            ) from error

    def drop_from(self, number: int) -> None:
        """Forget images of that number and beyond: the input has become shorter."""
        with self._rows:
            self._rows.execute("DELETE FROM images WHERE number >= ?", (number,))

    def __len__(self) -> int:
        return int(self._rows.execute("SELECT count(score) FROM images").fetchone()[0])

    def ranked(self, most: int | None = None) -> Iterator[dict[str, Any]]:
        """Give the rows, best first, equal ones in the order of the input.

        Args:
            most: rows; None: all.
        """
        query = (
            "SELECT content FROM images WHERE score IS NOT NULL ORDER BY score DESC, number LIMIT ?"
        )
        with closing(self._rows.execute(query, (-1 if most is None else most,))) as contents:
            for (content,) in contents:
                yield parse_json(content)

    def has_values(self, column: str) -> bool:
        """Tell whether an image came with something in that column, or prompt, of its table."""
        query = """
            SELECT 1 FROM images, json_each(content, '$.columns')
            WHERE key = ? AND value != '' LIMIT 1
        """
        return self._rows.execute(query, (column,)).fetchone() is not None

    def bad(self) -> list[BadImage]:
        """List the images that could not be scored, in the order of the input."""
        query = "SELECT content FROM images WHERE score IS NULL ORDER BY number"
        return [BadImage(**parse_json(content)) for (content,) in self._rows.execute(query)]
