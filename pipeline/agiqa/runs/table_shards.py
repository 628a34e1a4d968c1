"""Images out of Parquet and Arrow tables, a few rows in memory at a time."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.urls import is_url, shown
from agiqa.data.images import MAX_BYTES
from agiqa.runs.input_addresses import AddressError, named_in
from agiqa.runs.input_record import Cell, Columns, ImageInput, ShardError, as_cell

MOST_ROW_GROUP = 4 << 30  # bytes of a Parquet file's row group when unpacked
ROWS = 16  # of a table in memory at once


def read_parquet(file: Any, address: str, columns: Columns) -> Iterator[ImageInput]:
    """Read a Parquet file whose image column holds bytes, `{bytes, path}`, paths or URLs.

    Args:
        file: open for reading, seekable.
        address: its path or URL, beside which paths are looked up.
        columns: that are asked for.

    Raises:
        ShardError: no Parquet, or damaged.
        AgiqaError: no column of images, or `pyarrow` is not installed.
    """
    arrow = _pyarrow(where := shown(address))
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file, pre_buffer=False)
        about = table.metadata
        sizes = [about.row_group(group).total_byte_size for group in range(about.num_row_groups)]
        if sizes and not 0 <= max(sizes) <= MOST_ROW_GROUP:
            raise ShardError(
                f"has a row group of {max(sizes):,} bytes, more than {MOST_ROW_GROUP >> 30} GiB: "
                "write it with smaller ones (row_group_size)"
            )
        names = table.schema_arrow.names
        wanted = _wanted(names, where, columns)
        yield from _rows(
            table.iter_batches(ROWS, columns=list(dict.fromkeys(filter(None, wanted)))),
            address, wanted,
        )  # fmt: skip
    except (arrow.ArrowException, OSError) as error:
        raise _damaged("Parquet", error) from error


def read_arrow(file: Any, address: str, columns: Columns) -> Iterator[ImageInput]:
    """Read an Arrow stream, as `datasets` keeps on disk; otherwise as `read_parquet`."""
    arrow = _pyarrow(where := shown(address))
    try:
        stream = arrow.ipc.open_stream(file)
        batches = (
            batch.slice(start, ROWS) for batch in stream for start in range(0, batch.num_rows, ROWS)
        )
        yield from _rows(batches, address, _wanted(stream.schema.names, where, columns))
    except (arrow.ArrowException, OSError) as error:
        raise _damaged("Arrow", error) from error


def _wanted(names: Sequence[str], where: str, columns: Columns) -> list[str]:
    """Name the column of images, that of prompts or "", then those that are kept."""
    return [columns.image_of(names, where), columns.prompt_of(names, where), *columns.kept]


def _rows(batches: Any, address: str, wanted: Sequence[str]) -> Iterator[ImageInput]:
    image_column, prompt_column, *kept = wanted
    number = 0
    for batch in batches:
        for row in batch.select(list(dict.fromkeys(filter(None, wanted)))).to_pylist():
            cells = {name: as_cell(row[name]) for name in kept}
            prompt = str(row[prompt_column] or "") if prompt_column else ""
            yield as_input(row[image_column], address, number, prompt, cells)
            number += 1


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


def _pyarrow(where: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise AgiqaError(
            f"{where}: Parquet and Arrow need pyarrow: pip install 'agiqa[parquet]'"
        ) from error
    return pyarrow


def _damaged(kind: str, error: Exception) -> ShardError:
    return ShardError(f"is damaged, or no {kind} ({one_line(error)}): copy it again")
