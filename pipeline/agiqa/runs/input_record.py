"""One image to score, whatever it came in, and the columns that come with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agiqa.core.errors import AgiqaError, quoted, some
from agiqa.data.datasets.text_table import separator_hint

SHARDS = (".tar", ".parquet", ".arrow")
IMAGE_COLUMNS = ("image", "img", "path", "file", "filename", "file_name", "image_path", "name")
PROMPT_COLUMNS = ("prompt", "caption", "text")

Cell = str | int | float  # of a column that is kept; "": nothing


class ShardError(AgiqaError):
    """A shard that cannot be read on; what came before stands. The text follows its name."""


@dataclass(frozen=True)
class ImageInput:
    """One image to score: a file here, its bytes, its URL, or why it is none of them."""

    name: str  # its path, `shard.tar:000.png` or `table.parquet:17`
    path: Path | None = None
    content: bytes | None = None
    prompt: str = ""  # the text that it was generated from
    columns: Mapping[str, Cell] = field(default_factory=dict)  # of its row or record
    problem: str = ""  # why it cannot be read
    url: str = ""  # where its bytes are still to be fetched from


@dataclass(frozen=True)
class Columns:
    """The columns that are asked for by name; "" takes the first of the usual names."""

    image: str = ""
    prompt: str = ""
    kept: Sequence[str] = ()  # further ones, to group by

    def image_of(self, names: Sequence[str], where: str) -> str:
        """Name the column that holds the images.

        Raises:
            AgiqaError: it is not there, or none has a usual name.
        """
        named = _first(names, self.image, IMAGE_COLUMNS, where)
        if not named:
            hint = separator_hint(list(names)) or "name it with --image-column"
            raise AgiqaError(
                f"{where}: expected a column of images named {some(IMAGE_COLUMNS, 8)}; found "
                f"{some([quoted(name) for name in names], 20)}: {hint}"
            )
        return named

    def prompt_of(self, names: Sequence[str], where: str) -> str:
        """Name the column that holds the prompts; "" where there is none.

        Raises:
            AgiqaError: a column that is asked for is not there.
        """
        for name in self.kept:
            _first(names, name, (), where)
        return _first(names, self.prompt, PROMPT_COLUMNS, where)

    def prompt_in(self, record: Mapping[str, Cell], text: str) -> str:
        """Choose a sample's prompt: the column that is asked for, its text, or a usual column."""
        asked = record.get(self.prompt, "") if self.prompt else ""
        return str(asked or text or record.get(_first(tuple(record), "", PROMPT_COLUMNS, ""), ""))


def _first(names: Sequence[str], asked: str, usual: Sequence[str], where: str) -> str:
    if asked and asked not in names:
        raise AgiqaError(
            f"{where}: expected the column {quoted(asked)}; found "
            f"{some([quoted(name) for name in names], 20)}"
        )
    by_case = {name.casefold(): name for name in reversed(names)}
    return asked or next((by_case[name] for name in usual if name in by_case), "")


def as_cell(value: object) -> Cell:
    """Keep a finite number of 64 bits as it is; all else is text, and nothing is empty."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    return value if isinstance(value, float) and math.isfinite(value) else str(value)
