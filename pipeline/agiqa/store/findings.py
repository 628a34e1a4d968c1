"""What a check of a store finds: one finding for each bad file or chunk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a store."""

    path: Path  # the file
    problem: str  # in words, to be read after the path
    image_ids: tuple[str, ...] = ()  # of the rows that are bad by it, where they are known


@dataclass
class Report:
    """What the check of one store came to."""

    store: Path
    kind: str  # shelf or pack
    rows: int = 0  # that were checked
    segments: int = 0  # of a shelf, that were read
    chunks: int = 0  # of a pack's vectors, likewise
    size: int = 0  # bytes of the store
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # worth a line, and nothing wrong
    repaired: list[str] = field(default_factory=list)  # what was done about the findings
    refused: str = ""  # why nothing was
    is_mended: bool = False  # whether nothing is wrong any more

    @property
    def is_whole(self) -> bool:
        """Say whether nothing is wrong in the store."""
        return not self.findings
