"""What clients send: named for display, hashed, and kept for as long as it is looked at.

A client's file name is for display only; no path is made of it. The folder is the server's own,
readable by its owner alone, and goes when the server ends; each file goes as soon as it is
answered.
"""

import asyncio
import hashlib
import shutil
import threading
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from anyio import to_thread
from PIL import Image

from agiqa.data.images import ImageError, image_id
from agiqa.store.row_ids import Source
from agiqa.views.server.decoding import Decoders, UndecodableError

NAME_LENGTH = 255
BLOCK = 1 << 20  # bytes read at a time
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of letters that move the others

Result = TypeVar("Result")


def shown_name(name: str | None) -> str:
    """Make a client's file name fit to be shown: its last part, without control characters."""
    last = (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2][:NAME_LENGTH]
    plain = "".join("�" if unicodedata.category(letter) in HIDDEN else letter for letter in last)
    return plain or "unnamed"


@dataclass(frozen=True)
class RequestImage:
    """One image of a request: where it lies, or the bytes that came."""

    name: str  # for display
    prompt: str
    source: Path | BinaryIO

    async def image_id(self) -> str:
        """The sha256 of its bytes, as `agiqa.data.images.image_id`.

        Raises:
            UndecodableError: the file cannot be read.
        """
        try:
            if isinstance(self.source, Path):
                return await in_thread(image_id, self.source)
            return await in_thread(_digest, self.source)
        except ImageError as error:
            raise UndecodableError(error.reason) from None


class Uploads:
    """The folder of files that are being looked at, and the images decoded out of them."""

    def __init__(self, folder: Path, decoders: Decoders, image_bytes: int) -> None:
        self.folder, self.decoders = folder, decoders
        self._room, self._lock = image_bytes, threading.Lock()

    async def take(
        self, image_input: RequestImage, image_id: str = "", prompt: str | None = None
    ) -> Source:
        """Decode an image, once and in full; whoever takes it has it removed.

        The source has the image itself where there is room to keep it, `image_id` where it is
        known, and as `prompt` the text that the run's questions ask for.

        Raises:
            UndecodableError: it cannot be used, or not be kept.
        """
        path = self.folder / uuid.uuid4().hex
        if isinstance(image_input.source, Path):
            path = image_input.source
        try:
            if not isinstance(image_input.source, Path):
                await in_thread(_keep, image_input.source, path)
            image = await self.decoders.rgb(path)
        except BaseException as error:
            self.remove(Source(image_id, path))
            if isinstance(error, OSError):
                raise UndecodableError(f"cannot be kept for scoring: {error.strerror}") from error
            raise
        return Source(image_id, path, prompt, image if image and self._grow(image) else None)

    def remove(self, kept: Source, *_: object) -> None:
        """Delete a file of ours, never one of the operator's, and forget its image."""
        if kept.path.parent == self.folder:
            kept.path.unlink(missing_ok=True)
        if kept.image is not None:
            with self._lock:
                self._room += _size(kept.image)

    def _grow(self, image: Image.Image) -> bool:
        """Whether there is room for the image, which is taken then."""
        with self._lock:
            fits = _size(image) <= self._room
            self._room -= _size(image) * fits
            return fits


async def in_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    """Do `work(*arguments)` off the loop; its end is awaited where the request is given up."""
    task = asyncio.ensure_future(to_thread.run_sync(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _size(image: Image.Image) -> int:
    return 3 * image.width * image.height


def _digest(file: Any) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _keep(file: BinaryIO, path: Path) -> None:
    file.seek(0)
    with path.open("xb") as copy:
        shutil.copyfileobj(file, copy, BLOCK)
