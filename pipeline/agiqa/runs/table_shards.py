"""Images out of Parquet and Arrow tables, a few rows in memory at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.urls import is_url, shown
from agiqa.data.images import MAX_BYTES
from agiqa.runs.input_addresses import AddressError, named_in, suffix_of
from agiqa.runs.input_record import Cell, Columns, ImageInput, ShardError, as_cell

MOST_ROW_GROUP = 4 << 30  # bytes of a Parquet file's row group when unpacked
ROWS = 16  # of a table in memory at once


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
