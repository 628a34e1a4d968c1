"""Small JPEGs of the operator's own images: of the data set's, and of the folder given to serve.

They are asked for by their number in a list that the server made; no path comes from a client.
"""

from collections.abc import Sequence
from pathlib import Path

from agiqa.views.server.decoding import Decoders
from agiqa.views.server.recent import Recent

SIDES = {"small": 160, "large": 1024}  # pixels, the longer side
QUALITY = {"small": 80, "large": 88}
REMEMBERED = 512  # small ones, about 6 KB each


class Pictures:
    """A list of files, seen as pictures."""

    def __init__(self, paths: Sequence[Path], decoders: Decoders) -> None:
        self.paths = list(paths)
        self._decoders = decoders
        self._small: Recent[int, bytes] = Recent(REMEMBERED)

    async def jpeg(self, number: int, size: str) -> bytes:
        """The picture of that number, re-encoded.

        Raises:
            IndexError: there is none of that number.
            UndecodableError: the file cannot be used.
        """
        if not 0 <= number < len(self.paths):
            raise IndexError(number)
        if size == "small" and (known := self._small.get(number)) is not None:
            return known
        picture = await self._decoders.jpeg(self.paths[number], SIDES[size], QUALITY[size])
        if size == "small":
            self._small.put(number, picture)
        return picture
