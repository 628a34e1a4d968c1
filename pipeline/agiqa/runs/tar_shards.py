"""Images out of webdataset tars, read from front to back.

A tar is a stranger's file: members are bytes in memory, never paths on this disk, and bounded.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from agiqa.core.errors import one_line, printable
from agiqa.core.trees import parse_json
from agiqa.core.urls import shown
from agiqa.data.images import IMAGE_SUFFIXES, MAX_BYTES
from agiqa.runs.input_record import Cell, Columns, ImageInput, ShardError, as_cell

MOST_TEXT = 1 << 20  # bytes of a prompt, or of a record of columns
MOST_MEMBER = 1 << 34  # bytes of a member, to be passed over
MOST_SAMPLE = 2 * MAX_BYTES  # bytes of one sample


class _Member(tarfile.TarInfo):
    """A tar's member of a bounded size, and with an extended header no larger than any name.

    tarfile reads on to the end that a header says, however early the file ends.
    """

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        long_name = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.type in (*extended, *long_name) and not 0 <= self.size <= MOST_TEXT:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        if not 0 <= self.size <= MOST_MEMBER:
            raise tarfile.ReadError(f"a member of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def read_tar(file: BinaryIO, address: str, columns: Columns) -> Iterator[ImageInput]:
    """Read a tar as webdataset writes it: what shares a name up to its first dot is one sample.

    A member with an image's suffix is an image, `.txt` its prompt, `.json` its columns.

    Raises:
        ShardError: the tar is cut short, damaged or compressed.
    """
    digests = set[bytes]()  # of the names so far: a million take 0.1 GB
    sample = _Sample("", shown(address), columns, digests)
    try:
        with tarfile.open(fileobj=file, mode="r|", tarinfo=_Member) as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # which tarfile would keep
                if not member.isreg() or member.issparse():
                    continue
                path = PurePosixPath(member.name)
                key = str(path.parent / path.name.partition(".")[0])
                if key != sample.key:
                    yield from sample.images()
                    sample = _Sample(key, sample.where, columns, digests)
                sample.add(archive, member)
            yield from sample.images()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        yield from sample.images()
        raise ShardError(
            f"is damaged, or no uncompressed tar ({one_line(error) or 'it ends too early'}): copy "
            "it again, or unpack it first"
        ) from error


@dataclass
class _Sample:
    """The members of a sample as they come."""

    key: str
    where: str  # the tar
    columns: Columns
    digests: set[bytes]  # of the names of all members before
    members: dict[str, bytes] = field(default_factory=dict)
    bad: list[ImageInput] = field(default_factory=list)

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Read a member, if it is an image, a prompt or a record.

        Raises:
            ShardError: the sample is larger than any is.
        """
        name, suffix = self._name(member.name), PurePosixPath(member.name).suffix.lower()
        if suffix not in (*IMAGE_SUFFIXES, ".txt", ".json"):
            return
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        if member.size > (MAX_BYTES if suffix in IMAGE_SUFFIXES else MOST_TEXT):
            self.bad.append(ImageInput(name, problem=f"has {member.size:,} bytes, too many"))
        elif digest in self.digests:
            reason = "stands twice in the shard; the first counts"
            self.bad.append(ImageInput(name, problem=reason))
        elif sum(map(len, self.members.values())) + member.size > MOST_SAMPLE:
            raise ShardError(
                f"has more than {MOST_SAMPLE:,} bytes in files named {printable(self.key)}.*: give "
                "each image a name of its own"
            )
        else:
            self.digests.add(digest)
            content = archive.extractfile(member)
            self.members[member.name] = b"" if content is None else content.read()

    def images(self) -> Iterator[ImageInput]:
        """Give the sample's images with its prompt and columns, then what is bad."""
        record: dict[str, Cell] = {}
        prompt = ""
        for name, content in self.members.items():
            if name.lower().endswith(".txt"):
                prompt = content.decode(errors="replace").strip()
            elif name.lower().endswith(".json"):
                record |= _record(content)
        prompt = self.columns.prompt_in(record, prompt)
        kept = {column: record.get(column, "") for column in self.columns.kept}
        for name, content in self.members.items():
            if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
                yield ImageInput(self._name(name), None, content, prompt, kept)
        yield from self.bad

    def _name(self, member: str) -> str:
        return f"{self.where}:{printable(member)}"


def _record(content: bytes) -> dict[str, Cell]:
    """Read the plain values of a JSON object; what is none has no columns."""
    try:
        tree = parse_json(content)
    except ValueError:
        return {}
    plain = tree if isinstance(tree, dict) else {}
    return {
        key: as_cell(value) for key, value in plain.items() if not isinstance(value, dict | list)
    }
