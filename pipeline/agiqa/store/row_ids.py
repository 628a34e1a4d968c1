"""By which ids the ledger knows rows: an image's bytes, and its own prompt where that is asked."""

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from PIL import Image

from agiqa.data.datasets.table import ImagesTable
from agiqa.data.prompts import marks_in


@dataclass(frozen=True)
class Source:
    """An image's file, and the prompt that the image was made from where a table has it."""

    path: Path
    image_prompt: str | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)  # decoded already


def sources_of(table: ImagesTable) -> dict[str, Source]:
    """Find each distinct image of the table by id: the first row that has it."""
    prompts = table.frame["prompt"] if "prompt" in table.frame else [None] * len(table.frame)
    sources: dict[str, Source] = {}
    for image_id, path, prompt in zip(table.frame["image_id"], table.paths(), prompts, strict=True):
        sources.setdefault(image_id, Source(path, prompt if isinstance(prompt, str) else None))
    return sources


def prompted_row_id(image_id: str, image_prompt: str | None) -> str:
    """Make the row id of a vector whose question holds the image's own prompt.

    Prompts that spell marks have ids of their own: earlier versions made special tokens of them.
    """
    plain = "plain text\n" if marks_in(image_prompt or "") else ""
    return sha256(f"{plain}{image_id}\n{image_prompt}".encode()).hexdigest()
