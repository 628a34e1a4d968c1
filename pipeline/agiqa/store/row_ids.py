"""What a row is known by, the same in the ledger, in packs and to scorers.

An image's bytes (sha256); where a question holds the image's own prompt, the bytes and that prompt.
So a file that stands in a table under two prompts is two rows to an LMM that reads them, and one to
every other model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from agiqa.data.prompts import marks_in

if TYPE_CHECKING:
    from PIL import Image

    from agiqa.data.datasets.table import ImagesTable


@dataclass(frozen=True)
class Source:
    """An image's file, and the prompt that the image was made from where a question holds it."""

    image_id: str  # sha256 of the file's bytes
    path: Path
    image_prompt: str | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)  # decoded already

    @property
    def row_id(self) -> str:
        """What tells it from all others: the image, and the prompt if there is one."""
        return row_id(self.image_id, self.image_prompt)


def row_id(image_id: str, image_prompt: str | None = None) -> str:
    """Make the id of a row: the image's, mixed with its own prompt where that is read.

    White space around a prompt does not count, for no question has it; all else does, upper and
    lower case included: the model reads it. Prompts that spell marks have ids of their own:
    earlier versions made special tokens of them.
    """
    text = (image_prompt or "").strip()
    if not text:
        return image_id
    plain = "plain text\n" if marks_in(text) else ""
    return sha256(f"{plain}{image_id}\n{text}".encode()).hexdigest()


def row_ids(table: ImagesTable, by_prompt: bool) -> list[str]:
    """List the id of each row of the table, `by_prompt` where the images' own prompts are read."""
    if not by_prompt:
        return list(table.frame["image_id"])
    return [row_id(*row) for row in table.frame[["image_id", "prompt"]].itertuples(index=False)]


def sources_of(table: ImagesTable, by_prompt: bool) -> dict[str, Source]:
    """Find each distinct row of the table by its id: the first that has it."""
    sources: dict[str, Source] = {}
    rows = table.frame[["image_id", "prompt"]].itertuples(index=False)
    for (image_id, prompt), path in zip(rows, table.paths(), strict=True):
        source = Source(image_id, path, (prompt or None) if by_prompt else None)
        sources.setdefault(source.row_id, source)
    return sources
