"""The images to score, as people hold them: files, folders, globs, lists, tables, shards, URLs.

Read one after the other, so that a million need no list in memory. A shard that is damaged gives
what can be read of it, then itself as a problem: the others go on.
"""

import io
import itertools
import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from agiqa.core.errors import AgiqaError, one_line, printable, some
from agiqa.core.regular_files import open_regular, read_regular
from agiqa.core.urls import is_url, shown
from agiqa.data.datasets.folder import visible_files
from agiqa.data.datasets.text_table import parse_text_csv, read_text_csv
from agiqa.data.images import IMAGE_SUFFIXES, MAX_BYTES
from agiqa.runs.input_addresses import (
    WEB,
    AddressError,
    files_below,
    find_addresses,
    find_listed,
    is_missing,
    suffix_of,
)
from agiqa.runs.shards import (
    SHARDS,
    Cell,
    Columns,
    ImageInput,
    ShardError,
    as_cell,
    as_input,
    read_table_shard,
    read_tar,
)
from agiqa.store.remote import Remote, RemoteError, remote_errors

log = logging.getLogger(__name__)

TABLES = (".csv", ".tsv")
LISTS = (".txt", ".lst")
PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")
MOST_TEXT = 1 << 30  # bytes of a list of paths, or of a table at a URL
AT_ONCE = 16  # images fetched at a time
COMMENT = "#"  # begins a line of a list that names nothing
# As programs write numbers; 007 and 1.10.2 are names.
NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(\.\d+)?([eE][+-]?\d{1,3})?")


def read_inputs(named: Sequence[str], columns: Columns | None = None) -> Iterator[ImageInput]:
    """Read what is named, in order; an image that cannot be had is given with its problem.

    Where several are named, an image that two of them hold is given once.

    Args:
        named: files, folders, globs (`a/**/*.png`), lists of paths (.txt), tables (.csv, .tsv,
            .parquet) and shards (.tar, .arrow), here or at URLs; braces count (`{000..012}.tar`).
        columns: of tables, those that are asked for.

    Raises:
        AgiqaError: a name stands for nothing, before any is read; or a table or list cannot be.
    """
    addresses = list(itertools.chain.from_iterable(map(find_addresses, named)))
    kinds = (*SHARDS, *TABLES, *LISTS)
    urls = [address for address in addresses if is_url(address) and suffix_of(address) in kinds]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="look-up") as pool:
        for url, missing in zip(urls, pool.map(is_missing, urls), strict=True):
            if missing:
                raise AddressError(url, "does not exist")
    asked = columns or Columns()
    given: set[str] = set()
    for image in _fetched(image for address in addresses for image in _read(address, asked)):
        if len(named) > 1:
            if image.name in given:
                continue
            given.add(image.name)
        yield image


def _read(address: str, columns: Columns) -> Iterator[ImageInput]:
    """Read what an address holds, as its kind says."""
    suffix = suffix_of(address)
    if not is_url(address) and Path(address).is_dir():
        yield from _of_folder(address, visible_files(Path(address)), columns)
    elif suffix in TABLES:
        yield from _of_table(address, columns)
    elif suffix in LISTS:
        yield from _of_list(address, columns)
    elif suffix in SHARDS:
        yield from _of_shard(address, columns)
    elif suffix in PACKED:
        reason = "is compressed: unpack it first (gunzip); a tar is then read as it is"
        yield ImageInput(shown(address), problem=reason)
    elif not is_url(address):
        yield ImageInput(address, Path(address))
    elif suffix in IMAGE_SUFFIXES or address.lower().startswith(WEB):
        yield ImageInput(shown(address), url=address)
    else:
        yield from _of_folder(address, files_below(address), columns)


def _of_folder(folder: str, files: Sequence[str], columns: Columns) -> Iterator[ImageInput]:
    """Images in the folder or below; where there is none, its shards."""
    images = [file for file in files if suffix_of(file) in IMAGE_SUFFIXES]
    holders = [file for file in files if suffix_of(file) in (*SHARDS, *TABLES, *PACKED)]
    taken = images or [file for file in holders if suffix_of(file) in SHARDS]
    where = printable(shown(folder))
    if not taken:
        raise AgiqaError(
            f"{where}: expected images ({' '.join(IMAGE_SUFFIXES)}) or shards ({' '.join(SHARDS)}) "
            "in it or below, found none"
        )
    if images and columns.kept:
        raise AgiqaError(
            f"{where}: expected a table or shards with the column "
            f"{some(columns.kept)} (--keep), found a folder of images, which has none"
        )
    if unread := sorted(set(holders).difference(taken)):
        log.warning(
            "%s: its %s are scored; not read are %s: name them to score what they hold",
            where,
            "images" if images else "shards",
            some([printable(shown(file)) for file in unread], 3),
        )
    for file in taken:
        yield from _read(file, columns)


def _of_list(address: str, columns: Columns) -> Iterator[ImageInput]:
    """Read a list's lines as if they had been typed in its folder; lists in it are none."""
    where = printable(shown(address))
    try:
        lines = _content(address).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{where}: expected a list of paths, one a line: {error}") from error
    names = [line.strip() for line in lines if not line.strip().startswith(COMMENT)]
    if not any(names):
        raise AgiqaError(f"{where}: expected paths of images, one a line, found none")
    for name in filter(None, names):
        try:
            addresses = list(find_listed(address, name))
        except AddressError as error:
            yield ImageInput(error.address, problem=error.reason)
            continue
        except RemoteError as error:
            yield ImageInput(printable(shown(name)), problem=_not_fetched(name, error))
            continue
        for inner in addresses:
            if suffix_of(inner) in LISTS:
                reason = "is a list in a list: name it beside this one"
                yield ImageInput(printable(shown(inner)), problem=reason)
            else:
                yield from _read(inner, columns)


def _of_table(address: str, columns: Columns) -> Iterator[ImageInput]:
    if is_url(address):
        file = io.BufferedReader(io.BytesIO(_content(address)))
        frame = parse_text_csv(file, shown(address), suffix_of(address))
    else:
        frame = read_text_csv(Path(address))
    names = [str(name) for name in frame.columns]
    image_column = columns.image_of(names, shown(address))
    prompt_column = columns.prompt_of(names, shown(address))
    kept = {name: as_cells(list(frame[name])) for name in columns.kept}
    prompts = frame[prompt_column] if prompt_column else itertools.repeat("")
    for number, (image, prompt) in enumerate(zip(frame[image_column], prompts, strict=False)):
        cells = {name: column[number] for name, column in kept.items()}
        yield as_input(image, address, number, prompt, cells)


def as_cells(texts: Sequence[str]) -> Sequence[Cell]:
    """Read a column's texts as numbers where all are, each written in one way; else as texts.

    >>> as_cells(["1.5", "", "2"]), as_cells(["007", "8"]), as_cells(["1.1", "1.10"])
    ([1.5, '', 2], ['007', '8'], ['1.1', '1.10'])
    """
    numbers: dict[str, Cell] = {"": ""}
    for text in set(texts) - {""}:
        if (match := NUMBER.fullmatch(text)) is None:
            return texts
        numbers[text] = as_cell(float(text) if any(match.groups()) else int(text))
    if len(set(numbers.values())) < len(numbers):
        return texts
    return [numbers[text] for text in texts]


def _of_shard(address: str, columns: Columns) -> Iterator[ImageInput]:
    """Read a shard as far as it can be read, then say what is wrong with it."""
    read = read_tar if suffix_of(address) == ".tar" else read_table_shard
    try:
        if is_url(address):
            import fsspec

            with remote_errors("read", address), fsspec.open(address, "rb") as remote:
                yield from read(remote, address, columns)
        else:
            try:
                local = open_regular(Path(address))
            except (OSError, ValueError) as error:
                raise ShardError(f"cannot be read: {error}") from error
            with local:
                yield from read(local, address, columns)
    except RemoteError as error:
        yield ImageInput(shown(address), problem=_not_fetched(address, error))
    except ShardError as error:
        yield ImageInput(printable(shown(address)), problem=one_line(error))


def _content(address: str) -> bytes:
    if is_url(address):
        return Remote(address).read("", MOST_TEXT)
    return read_regular(Path(address), MOST_TEXT)


def _fetched(images: Iterable[ImageInput]) -> Iterator[ImageInput]:
    """Fetch images at URLs, some at a time; all are given in order."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as pool:
        for is_remote, run in itertools.groupby(images, lambda image: image.url != ""):
            if not is_remote:
                yield from run
                continue
            pending: deque[Future[ImageInput]] = deque()
            for image in run:
                pending.append(pool.submit(_fetch, image))
                if len(pending) == AT_ONCE:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()


def _fetch(image: ImageInput) -> ImageInput:
    try:
        content = Remote(image.url).read("", MAX_BYTES)
    except RemoteError as error:
        return ImageInput(image.name, problem=_not_fetched(image.url, error))
    return replace(image, content=content, url="")


def _not_fetched(url: str, error: RemoteError) -> str:
    """Say why a file could not be fetched; the text follows its name."""
    reason = one_line(error).removeprefix(f"{shown(url)}: ")
    return "cannot be read: " + re.sub("^expected to [a-z]+ it, found: ", "", reason)
