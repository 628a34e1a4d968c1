"""What is known of an official data set before it is read: size, scales, terms, where it is.

Numbers and layouts from the papers and the downloads themselves. The adapters check against them,
`agiqa datasets` lists them, `agiqa prepare --download` follows `hub`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class HubCopy:
    """A copy on the Hugging Face hub: archives that unpack to an official layout."""

    repository: str  # of kind dataset
    revision: str  # a commit, or a branch where the owners go on adding to it
    files: tuple[str, ...]  # to fetch; zip and tar archives among them are unpacked
    gigabytes: float  # to fetch
    whose: str  # for people: the authors' own, or who else's


@dataclass(frozen=True)
class Facts:
    """A data set with an official download."""

    name: str  # on the command line
    title: str  # in its paper
    images: int
    targets: Mapping[str, Range]  # the least and greatest MOS published
    scale: Range  # ends of the MOS's nominal scale
    licence: str  # as its owners state it
    address: str  # the official source
    get: str  # what a person does to have it
    hub: HubCopy | None = None

    @property
    def source(self) -> str:
        """Title and address, as a table and its runs keep them."""
        return f"{self.title}, {self.address}"

    @property
    def how(self) -> str:
        """How to get it, for the end of an error."""
        return f"{self.get}, or give --download" if self.hub else self.get
