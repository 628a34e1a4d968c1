"""Data sets: one module for each official layout, all giving the same images table."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from agiqa.data.datasets import (
    agiqa_1k,
    agiqa_3k,
    aigciqa2023,
    aigiqa_20k,
    csv_file,
    demo,
    evalmi_50k,
    evalmuse_40k,
    folder,
    koniq_10k,
    spaq,
)
from agiqa.data.datasets.official import Facts, Parts
from agiqa.data.datasets.table import ImagesTable


class Adapter(Protocol):
    """A module that reads an official download."""

    FACTS: Facts

    @property
    def prepare(self) -> Callable[..., ImagesTable]:
        """Read the download in a folder, as `prepare_download` does."""

    def find(self, source: Path) -> Parts:
        """Locate labels and images, or say in an AgiqaError what is absent; reads neither."""


OFFICIAL: dict[str, Adapter] = {
    module.FACTS.name: module
    for module in (
        agiqa_3k, aigiqa_20k, aigciqa2023, agiqa_1k, evalmuse_40k, evalmi_50k, koniq_10k, spaq,
    )
}  # fmt: skip

# The user's own, and what the project makes itself. Their arguments differ.
OWN: dict[str, Callable[..., ImagesTable]] = {
    "csv": csv_file.prepare,
    "folder": folder.prepare,
    "demo": demo.prepare,
}
