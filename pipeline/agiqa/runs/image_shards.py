"""Images out of shards: webdataset tars, Parquet and Arrow tables, read from front to back.

A shard is a stranger's file: members are bytes in memory, never paths on this disk, and bounded.
"""

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from agiqa.core.errors import AgiqaError, one_line, printable, quoted, some
from agiqa.core.trees import parse_json
from agiqa.data.datasets.table import inner_path
from agiqa.data.images import IMAGE_SUFFIXES, MAX_BYTES

SHARDS = (".tar", ".parquet", ".arrow")
MOST_TEXT = 1 << 20  # bytes of a prompt, or of a record of columns
MOST_SAMPLE = 2 * MAX_BYTES  # bytes of one webdataset sample
MOST_ROW_GROUP = 4 << 30  # bytes of a Parquet file's row group when unpacked
ROWS = 16  # of a table in memory at once
IMAGE_COLUMNS = ("image", "img", "path", "file", "filename", "file_name", "image_path", "name")
PROMPT_COLUMNS = ("prompt", "caption", "text")


@dataclass(frozen=True)
class ImageInput:
    """One image to score: a file here, or its bytes, or why it is neither."""

    name: str  # its path, `shard.tar:000.png` or `table.parquet:17`
    path: Path | None = None
    content: bytes | None = None
    prompt: str = ""  # the text that it was generated from
    columns: Mapping[str, str] = field(default_factory=dict)  # of its row or record
    problem: str = ""  # why it cannot be read


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
            raise AgiqaError(
                f"{where}: expected a column of images named {some(IMAGE_COLUMNS, 8)}; found "
                f"{some([quoted(name) for name in names], 20)}: name it with --image-column"
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


def _first(names: Sequence[str], asked: str, usual: Sequence[str], where: str) -> str:
    if asked and asked not in names:
        raise AgiqaError(
            f"{where}: expected the column {quoted(asked)}; found "
            f"{some([quoted(name) for name in names], 20)}"
        )
    by_case = {name.casefold(): name for name in reversed(names)}
    return asked or next((by_case[name] for name in usual if name in by_case), "")


class _Member(tarfile.TarInfo):
    """A tar's member whose extended header is not read where it is larger than any name."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        long_name = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.type in (*extended, *long_name) and not 0 <= self.size <= MOST_TEXT:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def read_tar(file: BinaryIO, where: str, columns: Columns) -> Iterator[ImageInput]:
    """Read a tar as webdataset writes it: what shares a name up to its first dot is one sample.

    A member with an image's suffix is an image, `.txt` its prompt, `.json` its columns.

    Raises:
        AgiqaError: the tar is cut short, damaged or compressed.
    """
    key, sample = "", dict[str, bytes]()
    try:
        with tarfile.open(fileobj=file, mode="r|", tarinfo=_Member) as archive:
            for member in archive:
                if not member.isreg() or member.issparse():
                    continue
                path = PurePosixPath(member.name)
                own_key = str(path.parent / path.name.partition(".")[0])
                if own_key != key:
                    yield from _sample(sample, where, columns)
                    key, sample = own_key, {}
                is_image = path.suffix.lower() in IMAGE_SUFFIXES
                if not is_image and path.suffix.lower() not in (".txt", ".json"):
                    continue
                if member.size > (MAX_BYTES if is_image else MOST_TEXT):
                    name = f"{where}:{printable(member.name)}"
                    yield ImageInput(name, problem=f"has {member.size:,} bytes, too many")
                    continue
                if sum(map(len, sample.values())) + member.size > MOST_SAMPLE:
                    raise AgiqaError(
                        f"{where}: expected at most {MOST_SAMPLE:,} bytes in files named "
                        f"{printable(key)}.*, found more: give each image a name of its own"
                    )
                if member.name in sample:
                    name = f"{where}:{printable(member.name)}"
                    yield ImageInput(name, problem="stands twice in the shard; the first counts")
                    continue
                content = archive.extractfile(member)
                sample[member.name] = b"" if content is None else content.read()
            yield from _sample(sample, where, columns)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise AgiqaError(
            f"{where}: expected an uncompressed tar, found a damaged or another file "
            f"({one_line(error) or 'it ends too early'}): copy it again, or unpack it first"
        ) from error


def _sample(members: Mapping[str, bytes], where: str, columns: Columns) -> Iterator[ImageInput]:
    record: dict[str, str] = {}
    prompt = ""
    for name, content in members.items():
        if name.lower().endswith(".txt"):
            prompt = content.decode(errors="replace").strip()
        elif name.lower().endswith(".json"):
            record |= _record(content)
    asked = _first(tuple(record), "", (columns.prompt, *PROMPT_COLUMNS), where)
    for name, content in members.items():
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            shown = f"{where}:{printable(name)}"
            kept = {column: record.get(column, "") for column in columns.kept}
            yield ImageInput(shown, None, content, prompt or record.get(asked, ""), kept)


def _record(content: bytes) -> dict[str, str]:
    """Read the plain values of a JSON object; what is none has no columns."""
    try:
        tree = parse_json(content)
    except ValueError:
        return {}
    plain = tree if isinstance(tree, dict) else {}
    return {key: str(value) for key, value in plain.items() if not isinstance(value, dict | list)}


def read_parquet(
    file: Any, where: str, folder: Path | None, columns: Columns
) -> Iterator[ImageInput]:
    """Read a Parquet file whose image column holds bytes, `{bytes, path}` or paths.

    Args:
        file: open for reading, seekable.
        where: it is, for names and messages.
        folder: that paths are relative to; None: nothing on this machine.
        columns: that are asked for.

    Raises:
        AgiqaError: no Parquet, damaged, no column of images, or `pyarrow` is not installed.
    """
    arrow = _pyarrow(where)
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file, pre_buffer=False)
        about = table.metadata
        sizes = [about.row_group(group).total_byte_size for group in range(about.num_row_groups)]
        if sizes and not 0 <= max(sizes) <= MOST_ROW_GROUP:
            raise AgiqaError(
                f"{where}: expected row groups of at most {MOST_ROW_GROUP >> 30} GiB, found "
                f"{max(sizes):,} bytes: write it with smaller ones (row_group_size)"
            )
        names = table.schema_arrow.names
        wanted = _wanted(names, where, columns)
        yield from _rows(
            table.iter_batches(ROWS, columns=list(dict.fromkeys(filter(None, wanted)))),
            where, folder, wanted,
        )  # fmt: skip
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(where, "Parquet", error) from error


def read_arrow(
    file: Any, where: str, folder: Path | None, columns: Columns
) -> Iterator[ImageInput]:
    """Read an Arrow stream, as `datasets` keeps on disk; otherwise as `read_parquet`."""
    arrow = _pyarrow(where)
    try:
        stream = arrow.ipc.open_stream(file)
        batches = (
            batch.slice(start, ROWS) for batch in stream for start in range(0, batch.num_rows, ROWS)
        )
        yield from _rows(batches, where, folder, _wanted(stream.schema.names, where, columns))
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(where, "Arrow", error) from error


def _wanted(names: Sequence[str], where: str, columns: Columns) -> list[str]:
    """Name the column of images, that of prompts or "", then those that are kept."""
    return [columns.image_of(names, where), columns.prompt_of(names, where), *columns.kept]


def _rows(
    batches: Any, where: str, folder: Path | None, wanted: Sequence[str]
) -> Iterator[ImageInput]:
    image_column, prompt_column, *kept = wanted
    number = 0
    for batch in batches:
        for row in batch.select(list(dict.fromkeys(filter(None, wanted)))).to_pylist():
            texts = {name: "" if row[name] is None else str(row[name]) for name in kept}
            prompt = str(row[prompt_column] or "") if prompt_column else ""
            yield _input(row[image_column], f"{where}:{number}", folder, prompt, texts)
            number += 1


def _input(
    value: object, name: str, folder: Path | None, prompt: str, columns: Mapping[str, str]
) -> ImageInput:
    """Make an input of a cell: bytes, a path inside the folder, or both (the bytes count)."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        if len(value) > MAX_BYTES:
            return ImageInput(name, problem=f"has {len(value):,} bytes, too many")
        return ImageInput(name, None, value, prompt, columns)
    if not isinstance(value, str) or not value:
        return ImageInput(name, problem="is neither bytes nor a path")
    if folder is None:
        return ImageInput(name, problem="is a path, which nothing at a URL can be looked up by")
    try:
        path = folder / inner_path(value, name)
    except AgiqaError as error:
        return ImageInput(name, problem=one_line(error).removeprefix(f"{name}: "))
    return ImageInput(str(path), path, None, prompt, columns)


def _pyarrow(where: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise AgiqaError(
            f"{where}: Parquet and Arrow need pyarrow: pip install 'agiqa[parquet]'"
        ) from error
    return pyarrow


def _damaged(where: str, kind: str, error: Exception) -> AgiqaError:
    return AgiqaError(
        f"{where}: expected {kind}, found a damaged or another file ({one_line(error)}): copy it "
        "again"
    )
