"""What clients send: named for display, hashed, decoded in child processes, kept while looked at.

A client's file name is for display only; no path is made of it. The folder of uploads is the
server's own, readable by its owner alone, and goes when the server ends; each file goes as soon as
it is answered.

A few child processes decode what strangers send (`decoder`), and are ended where they must. A place
in the queue before them is held until the work has really ended: where a request is given up, its
child is killed first. A child that dies takes one file with it; the next one starts anew. They also
make small JPEGs of the data set's images, which are asked for by their number in a list that the
server made.
"""

import asyncio
import hashlib
import logging
import os
import shutil
import signal
import struct
import sys
import threading
import unicodedata
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from anyio import to_thread
from cachetools import LRUCache
from PIL import Image
from starlette.exceptions import HTTPException

from agiqa.store.row_ids import Source
from agiqa.views.server.decoder import SIZE
from agiqa.views.server.limits import Limits

log = logging.getLogger(__name__)

PROGRAM = "agiqa.views.server.decoder"
SIDES = {"small": 160, "large": 1024}  # pixels of a JPEG, the longer side
QUALITY = {"small": 80, "large": 88}
REMEMBERED = 512  # small ones, about 6 KB each
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
NAME_LENGTH = 255
BLOCK = 1 << 20  # bytes copied at a time
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of letters that move the others

Result = TypeVar("Result")


class UndecodableError(Exception):
    """A file that cannot be used; says why, in plain words."""


@dataclass(frozen=True)
class RequestImage:
    """One image of a request."""

    name: str  # for display
    prompt: str
    file: BinaryIO


def shown_name(name: str | None) -> str:
    """Make a client's file name fit to be shown: its last part, without control characters."""
    last = (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2][:NAME_LENGTH]
    plain = "".join("�" if unicodedata.category(letter) in HIDDEN else letter for letter in last)
    return plain or "unnamed"


class Uploads:
    """A new folder of files that are being looked at, and the images decoded out of them."""

    def __init__(self, folder: Path, decoders: "Decoders", image_bytes: int) -> None:
        folder.mkdir()
        self.folder, self.decoders = folder, decoders
        self._room, self._lock = image_bytes, threading.Lock()

    async def take(self, file: BinaryIO, image_id: str = "", prompt: str | None = None) -> Source:
        """Decode an image, once and in full; whoever takes it has it removed.

        The source has the image itself where there is room to keep it, `image_id` where it is
        known, and as `prompt` the text that the run's questions ask for.

        Raises:
            UndecodableError: it cannot be used, or not be kept.
        """
        path = self.folder / uuid.uuid4().hex
        try:
            await in_thread(_keep, file, path)
            image = await self.decoders.rgb(path)
        except BaseException as error:
            self.remove(Source(image_id, path))
            if isinstance(error, OSError):
                raise UndecodableError(f"cannot be kept for scoring: {error.strerror}") from error
            raise
        return Source(image_id, path, prompt, image if image and self._grow(image) else None)

    def remove(self, kept: Source, *_: object) -> None:
        """Delete the file, and forget its image."""
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


def _size(image: Image.Image) -> int:
    return 3 * image.width * image.height


def _keep(file: BinaryIO, path: Path) -> None:
    file.seek(0)
    with path.open("xb") as copy:
        shutil.copyfileobj(file, copy, BLOCK)


async def digest(file: Any) -> str:
    """The sha256 of an upload's bytes, as `agiqa.data.images.image_id`."""

    def read() -> str:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()

    return await in_thread(read)


async def in_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    """Do `work(*arguments)` off the loop; its end is awaited where the request is given up."""
    task = asyncio.ensure_future(to_thread.run_sync(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class Decoders:
    """Decodes files, a few at once, each within `decode_seconds` and `decode_megabytes`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._children = [_Child(limits) for _ in range(limits.decoders)]
        self._idle: asyncio.Queue[_Child] = asyncio.Queue()
        for child in self._children:
            self._idle.put_nowait(child)

    async def start(self) -> None:
        """Start the children ahead of the first file."""
        for child in self._children:
            await child.start()

    async def close(self) -> None:
        """End the children, whatever they do."""
        for child in self._children:
            await child.end()

    async def rgb(self, path: Path) -> Image.Image | None:
        """Decode the file in full; None where it has more pixels than are handed over.

        Raises:
            UndecodableError: it cannot be used.
        """
        content = await self._ask(path, "rgb", self._limits.handed_pixels)
        if not content:
            return None
        start = struct.calcsize(SIZE)
        return Image.frombytes("RGB", struct.unpack(SIZE, content[:start]), content[start:])

    async def jpeg(self, path: Path, side: int, quality: int) -> bytes:
        """The file as a JPEG whose longer side has at most `side` pixels, or as `rgb` raises."""
        return await self._ask(path, str(side), quality)

    async def _ask(self, path: Path, wanted: str, number: int) -> bytes:
        child = await self._idle.get()
        try:
            return await child.ask(f"{wanted} {number} {os.fsencode(path).hex()}\n")
        finally:
            self._idle.put_nowait(child)


class Pictures:
    """A list of files, seen as JPEGs."""

    def __init__(self, paths: Sequence[Path], decoders: Decoders) -> None:
        self.paths, self._decoders = list(paths), decoders
        self._small: LRUCache[int, bytes] = LRUCache(REMEMBERED)

    async def jpeg(self, number: int, size: str) -> bytes:
        """Re-encode the picture of that number.

        Raises:
            HTTPException: 404, there is none of that number, or its file cannot be used.
        """
        if not 0 <= number < len(self.paths):
            raise HTTPException(404, f"There is no picture {number}.")
        picture: bytes | None = self._small.get(number) if size == "small" else None
        if picture is None:
            try:
                picture = await self._decoders.jpeg(self.paths[number], SIDES[size], QUALITY[size])
            except UndecodableError as error:
                raise HTTPException(404, f"The picture {error}.") from None
            if size == "small":
                self._small[number] = picture
        return picture


class _Child:
    """One process, started when it is first needed and again after its end."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> asyncio.subprocess.Process:
        """Start the process, unless it runs."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # no module of the folder that the server was started in
                "-m",
                PROGRAM,
                f"{self._limits.decode_seconds:g}",
                str(self._limits.decode_megabytes),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, **dict.fromkeys(ONE_THREAD, "1")},
                start_new_session=True,  # Ctrl-C is for the server; and its children end with it
            )
        return self._process

    async def ask(self, job: str) -> bytes:
        """The bytes that answer the job; however this ends, nobody works on it any more."""
        reason, status = None, 0
        try:
            process = await self.start()  # OSError: no process can be started
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(job.encode())
            await process.stdin.drain()
            lengths = (await process.stdout.readuntil()).split()
            words, content = [await process.stdout.readexactly(int(length)) for length in lengths]
            reason = words.decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            log.debug("a decoder died over its file")
        except OSError as error:
            raise UndecodableError(f"cannot be decoded now: {error.strerror}") from error
        finally:
            if reason is None:
                status = await self.end()
        if reason is None:
            reason = self._reason(status)
        if reason:
            raise UndecodableError(reason)
        return content

    async def end(self) -> int:
        """Kill the process, if there is one, and wait for its end: its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(ProcessLookupError):  # its group: a decoder may have one of its own
            os.killpg(process.pid, signal.SIGKILL)  # of no effect on the status of one that ends
        return await process.wait()

    def _reason(self, status: int) -> str:
        """Why a child ended over a file, in words for who sent it."""
        if status == -signal.SIGXCPU:
            return (
                f"takes more than {self._limits.decode_seconds:g} s to decode: make it smaller, or "
                "save it as an ordinary PNG or JPEG"
            )
        log.warning("A decoder ended with status %d over a file, which is refused.", status)
        return "cannot be decoded: its decoder broke down over it"
