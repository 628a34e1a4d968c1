"""Images out of tables and shards: one image to score, whatever it came in, and its columns.

Parquet and Arrow tables give a few rows at a time; webdataset tars are read from front to back. A
shard is a stranger's file: members are bytes in memory, never paths on this disk, and bounded.
"""

import hashlib
import math
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from agiqa.core.errors import AgiqaError, one_line, printable, quoted, some
from agiqa.core.trees import parse_json
from agiqa.core.urls import is_url, shown
from agiqa.data.datasets.text_table import separator_hint
from agiqa.data.images import IMAGE_SUFFIXES, MAX_BYTES
from agiqa.runs.input_addresses import AddressError, named_in, suffix_of

SHARDS = (".tar", ".parquet", ".arrow")
IMAGE_COLUMNS = ("image", "img", "path", "file", "filename", "file_name", "image_path", "name")
PROMPT_COLUMNS = ("prompt", "caption", "text")
MOST_ROW_GROUP = 4 << 30  # bytes of a Parquet file's row group when unpacked
ROWS = 16  # of a table in memory at once
MOST_TEXT = 1 << 20  # bytes of a prompt, or of a record of columns
MOST_MEMBER = 1 << 34  # bytes of a member, to be passed over
MOST_SAMPLE = 2 * MAX_BYTES  # bytes of one sample

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


def read_table_shard(file: Any, address: str, columns: Columns) -> Iterator[ImageInput]:
    """Read Parquet, or an Arrow stream, as `datasets` keeps on disk.

    Its image column holds bytes, `{bytes, path}`, paths or URLs.

    Args:
        file: open for reading, of Parquet seekable.
        address: its path or URL, beside which paths are looked up; its suffix says which it is.
        columns: that are asked for.

    Raises:
        ShardError: it is neither, or damaged.
        AgiqaError: no column of images, or `pyarrow` is not installed.
    """
    where, is_parquet = shown(address), suffix_of(address) == ".parquet"
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise AgiqaError(
            f"{where}: Parquet and Arrow need pyarrow: pip install 'agiqa[parquet]'"
        ) from error
    try:
        if is_parquet:
            table = parquet.ParquetFile(file, pre_buffer=False)
            _require_small_row_groups(table.metadata)
            names = table.schema_arrow.names
        else:
            stream = ipc.open_stream(file)
            names = stream.schema.names
        wanted = [columns.image_of(names, where), columns.prompt_of(names, where), *columns.kept]
        read = list(dict.fromkeys(filter(None, wanted)))
        if is_parquet:
            batches = table.iter_batches(ROWS, columns=read)
        else:
            batches = (b.slice(start, ROWS) for b in stream for start in range(0, len(b), ROWS))
        rows = (row for batch in batches for row in batch.select(read).to_pylist())
        for number, row in enumerate(rows):
            cells = {name: as_cell(row[name]) for name in columns.kept}
            prompt = str(row[wanted[1]] or "") if wanted[1] else ""
            yield as_input(row[wanted[0]], address, number, prompt, cells)
    except (pyarrow.ArrowException, OSError) as error:
        kind = "Parquet" if is_parquet else "Arrow"
        raise ShardError(f"is damaged, or no {kind} ({one_line(error)}): copy it again") from error


def _require_small_row_groups(about: Any) -> None:
    """Refuse a Parquet file, by its metadata, of which a row group needs too much memory."""
    sizes = [about.row_group(group).total_byte_size for group in range(about.num_row_groups)]
    if sizes and not 0 <= max(sizes) <= MOST_ROW_GROUP:
        raise ShardError(
            f"has a row group of {max(sizes):,} bytes, more than {MOST_ROW_GROUP >> 30} GiB: "
            "write it with smaller ones (row_group_size)"
        )


def as_input(
    value: object, table: str, number: int, prompt: str, columns: Mapping[str, Cell]
) -> ImageInput:
    """Make an input of a table's cell: bytes, a path or URL, or both (the bytes count).

    Args:
        value: of the column of images.
        table: its path or URL, beside which paths are looked up.
        number: of the row, from 0.
        prompt: of the row.
        columns: of the row, those that are kept.
    """
    name = f"{shown(table)}:{number}"
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        if len(value) > MAX_BYTES:
            return ImageInput(name, problem=f"has {len(value):,} bytes, too many")
        return ImageInput(name, None, value, prompt, columns)
    if not isinstance(value, str) or not value:
        return ImageInput(name, problem="is neither bytes nor a path")
    try:
        address = named_in(table, value)
    except AddressError as error:
        return ImageInput(error.address, problem=error.reason)
    if is_url(address):
        return ImageInput(shown(address), None, None, prompt, columns, url=address)
    return ImageInput(address, Path(address), None, prompt, columns)


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
