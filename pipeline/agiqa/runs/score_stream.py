"""Scores of a stream of images, a chunk at a time, into rows that no kill takes back.

The rows lie in a file of SQLite: none is lost by a kill, none has to be in memory. Where a million
images are scored, they are kept beside the file that they are for (`scores.csv.unfinished`) until
it is whole; the same command goes on from there.
"""

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

from agiqa.core.errors import AgiqaError, one_line, printable
from agiqa.core.json_text import json_text
from agiqa.core.trees import parse_json
from agiqa.data.images import BadImage, check_images
from agiqa.runs.image_scorer import ImageScorer
from agiqa.runs.score import Score
from agiqa.runs.shards import ImageInput

log = logging.getLogger(__name__)

CHUNK = 1024  # images whose vectors, and bytes on the disk, are held at a time
CLUSTER_CHUNK = 16 * CHUNK  # the same where each chunk is a job that loads the models
LINE_EVERY = 20.0  # seconds
NO_PROMPT = (
    "comes without the text that it was generated from, which is asked for: fill in its prompt "
    "(--prompt-column says where), or give --image-prompt"
)
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

Item = TypeVar("Item")
# Of an image: its number in the order of the input, a stamp that changes with the image, its score
# (None: it could not be scored), and its row, or why there is none.
NumberedRow = tuple[int, str, float | None, dict[str, Any]]


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
        values = [(*row[:3], json_text(row[3], ascii_only=True)) for row in rows]
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


class BadInputError(AgiqaError):
    """Images that cannot be scored, found before any other was."""

    def __init__(self, bad: Sequence[BadImage], count: int) -> None:
        super().__init__(f"{len(bad)} of {count} images cannot be scored.")
        self.bad, self.count = tuple(bad), count


def score_stream(
    images: Iterable[ImageInput],
    load: Callable[[], ImageScorer],
    rows: ScoreRows,
    *,
    image_prompt: str | None = None,
    skip_bad: bool = False,
    chunk: int = CHUNK,
) -> int:
    """Score images that have no row yet, and add their rows; bad ones are rows, too.

    Args:
        images: in the order of the input.
        load: gives the scorer, once there is an image to score.
        rows: added to, a chunk at a time.
        image_prompt: the text that all of them were generated from; else each has its own.
        skip_bad: go on where the first chunk has images that cannot be read.
        chunk: images at a time.

    Returns:
        The images of the input, bad ones included.

    Raises:
        BadInputError: the first chunk has bad images, and `skip_bad` is off.
        AgiqaError: the input cannot be read on, or a failure that is not about one image.
    """
    started = logged = time.monotonic()
    count = scored = 0
    for numbered in _chunks(enumerate(images), chunk):
        count += len(numbered)
        new = [
            (number, image, stamp)
            for number, image in numbered
            if not rows.has(number, stamp := _stamp(image))
        ]
        if not new:
            continue
        added = _score(new, load(), image_prompt, skip_bad, len(rows), count)
        rows.add(added)
        scored += len(added)
        if time.monotonic() - logged > LINE_EVERY:
            logged = time.monotonic()
            log.info("Scored %s images, %.3g a second", f"{count:,}", scored / (logged - started))
    rows.drop_from(count)
    return count


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Divide into lists; where the items end in an error, the last ones come before it."""
    chunk: list[Item] = []
    error: AgiqaError | None = None
    try:
        for item in items:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except AgiqaError as raised:
        error = raised
    if chunk:
        yield chunk
    if error is not None:
        raise error


def _stamp(image: ImageInput) -> str:
    """Say in a few letters what the image is: its name, its row, and its bytes or their time."""
    about: object = hashlib.sha256(image.content or b"").hexdigest()
    if image.path is not None:
        with suppress(OSError, ValueError):
            status = image.path.stat()
            about = (status.st_size, status.st_mtime_ns)
    row = repr((about, image.prompt, sorted(image.columns.items())))
    return f"{printable(image.name)} {hashlib.sha256(row.encode()).hexdigest()}"


def _score(
    numbered: Sequence[tuple[int, ImageInput, str]],
    scorer: ImageScorer,
    image_prompt: str | None,
    skip_bad: bool,
    before: int,
    count: int,
) -> list[NumberedRow]:
    """Score a chunk, the last of `count` images, of which `before` have a score.

    Raises:
        BadInputError: some are bad and none was scored before, or all are.
    """
    first = not skip_bad and not before
    images = [image for _, image, _ in numbered]
    if scorer.asks_image_prompt:
        images = _with_prompts(images, image_prompt, before)
    problems = {row: image.problem for row, image in enumerate(images) if image.problem}
    with TemporaryDirectory(prefix="agiqa-score-") as spool:
        paths = [_file(image, Path(spool, str(row))) for row, image in enumerate(images)]
        if first:
            given = dict.fromkeys(path for row, path in enumerate(paths) if row not in problems)
            problems |= _problems(paths, check_images(list(given)))
        if problems and (first or len(problems) == count):
            bad = [BadImage(printable(images[row].name), why) for row, why in problems.items()]
            raise BadInputError(bad, count)
        good = [row for row in range(len(paths)) if row not in problems]
        asks = scorer.asks_image_prompt or image_prompt is not None
        scores, refused = scorer.score_good(
            [paths[row] for row in good],
            [image_prompt or images[row].prompt for row in good] if asks else None,
        )
        problems |= _problems(paths, refused)
    scored = dict(zip((row for row in good if row not in problems), scores, strict=True))
    return [
        _row(number, stamp, images[row], scored.get(row), problems.get(row, ""))
        for row, (number, _, stamp) in enumerate(numbered)
    ]


def _problems(paths: Sequence[Path], bad: Iterable[BadImage]) -> dict[int, str]:
    """Find the rows of bad images, each with its reason."""
    reasons = {image.path: image.reason for image in bad}
    names = map(printable, paths)  # as messages print them
    return {row: reasons[name] for row, name in enumerate(names) if name in reasons}


def _with_prompts(
    images: Sequence[ImageInput], image_prompt: str | None, before: int
) -> list[ImageInput]:
    """Give all images the prompt that is asked for; without it, those that lack one are bad.

    But where none of the first ones has one: then the scorer says so, once.
    """
    if image_prompt:
        columns = {"prompt": image_prompt}
        return [
            replace(image, prompt=image_prompt, columns={**image.columns, **columns})
            for image in images
        ]
    if not before and not any(image.prompt.strip() for image in images):
        return list(images)
    return [
        image if image.problem or image.prompt.strip() else replace(image, problem=NO_PROMPT)
        for image in images
    ]


def _file(image: ImageInput, path: Path) -> Path:
    """Give the image's file; of one that is none, its bytes at `path`."""
    if image.path is not None:
        return image.path
    path.write_bytes(image.content or b"")
    return path


def _row(
    number: int, stamp: str, image: ImageInput, score: Score | None, problem: str
) -> NumberedRow:
    if score is None:
        return number, stamp, None, vars(BadImage(printable(image.name), problem))
    content = {key: value for key, value in vars(score).items() if key != "quality_map"}
    columns = {"prompt": image.prompt, **image.columns}
    return number, stamp, score.score, content | {"image": image.name, "columns": columns}
