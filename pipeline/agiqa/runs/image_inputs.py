"""The images to score, as people hold them: files, folders, globs, lists, tables, shards, URLs.

Read one after the other, so that a million need no list in memory. What a person types may lie
anywhere; what a table or a shard names stays inside its folder.
"""

import glob
import itertools
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

from agiqa.core.errors import AgiqaError, one_line, printable, some
from agiqa.core.regular_files import open_regular, read_regular
from agiqa.core.urls import is_url, shown
from agiqa.data.datasets.folder import find_images
from agiqa.data.datasets.table import inner_path
from agiqa.data.datasets.text_table import read_text_csv
from agiqa.data.images import IMAGE_SUFFIXES, MAX_BYTES
from agiqa.runs.image_shards import (
    SHARDS,
    Columns,
    ImageInput,
    read_arrow,
    read_parquet,
    read_tar,
)
from agiqa.store.shared.remote import RemoteError, remote_errors

TABLES = (".csv", ".tsv")
LISTS = (".txt", ".lst")
MOST_LIST = 1 << 30  # bytes of a list of paths
MOST_NAMES = 1_000_000  # that braces stand for
AT_ONCE = 16  # images fetched at a time
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def read_inputs(named: Sequence[str], columns: Columns | None = None) -> Iterator[ImageInput]:
    """Read what is named, in order; an image that cannot be had is given with its problem.

    Where several are named, an image that two of them hold is given once.

    Args:
        named: files, folders, globs (`a/**/*.png`), lists of paths (.txt), tables (.csv, .tsv,
            .parquet) and shards (.tar, .arrow), here or at URLs; braces count (`{000..012}.tar`).
        columns: of tables, those that are asked for.

    Raises:
        AgiqaError: nothing is there, or a table, list or shard cannot be read.
    """
    given: set[str] = set()
    for address in itertools.chain.from_iterable(map(expand_braces, named)):
        reader = _of_url if is_url(address) else _of_path
        for image in reader(address, columns or Columns()):
            if len(named) > 1:
                if image.name in given:
                    continue
                given.add(image.name)
            yield image


def expand_braces(address: str) -> Iterator[str]:
    """List what braces stand for: `{a,b}` and `{000..012}`, as shells and webdataset have it.

    >>> list(expand_braces("s-{08..10}.tar"))
    ['s-08.tar', 's-09.tar', 's-10.tar']

    Raises:
        AgiqaError: they stand for too many names.
    """
    match = BRACES.search(address)
    if match is None or Path(address).exists():
        yield address
        return
    inner = match[1]
    if bounds := RANGE.fullmatch(inner):
        first, last = int(bounds[1]), int(bounds[2])
        if not 0 <= last - first < MOST_NAMES:
            raise AgiqaError(
                f"{printable(address)}: expected a range of 1 to {MOST_NAMES:,} numbers that rises"
            )
        width = len(bounds[1]) if bounds[1].startswith("0") else 0
        parts: Iterator[str] = (f"{number:0{width}d}" for number in range(first, last + 1))
    elif "," in inner:
        parts = iter(inner.split(","))
    else:
        yield address
        return
    for part in parts:
        yield from expand_braces(address[: match.start()] + part + address[match.end() :])


def _of_path(address: str, columns: Columns) -> Iterator[ImageInput]:
    if not address.strip():
        raise AgiqaError("expected a path, found an empty one: '.' is this folder")
    path = Path(address)
    suffix = path.suffix.lower()
    if path.is_dir():
        yield from _of_folder(path, columns)
    elif not path.exists() and glob.has_magic(address):
        matches = sorted(glob.glob(address, recursive=True))  # noqa: PTH207 - absolute ones, too
        if not matches:
            raise AgiqaError(f"{printable(address)}: expected images of that pattern, found none")
        for match in matches:
            if not Path(match).is_dir():
                yield from _of_path(match, columns)
    elif not path.exists():
        raise AgiqaError(f"{printable(address)}: no such file or folder.")
    elif suffix in TABLES:
        yield from _of_table(path, columns)
    elif suffix in LISTS:
        yield from _of_list(path)
    elif suffix in SHARDS:
        with _opened(path) as file:
            yield from _of_shard(file, str(path), path.parent, columns)
    else:
        yield ImageInput(str(path), path)


def _of_folder(folder: Path, columns: Columns) -> Iterator[ImageInput]:
    """Images in the folder or below; where there is none, its shards."""
    shards = sorted(path for kind in SHARDS for path in folder.rglob(f"*{kind}"))
    try:
        images = find_images(folder)
    except AgiqaError:
        if not shards:
            raise
        images = []
    if images and columns.kept:
        raise AgiqaError(
            f"{printable(folder)}: expected a table or shards with the column "
            f"{some(columns.kept)} (--keep), found a folder of images, which has none"
        )
    yield from (ImageInput(str(path), path) for path in images)
    for shard in () if images else shards:
        yield from _of_path(str(shard), columns)


def _of_list(path: Path) -> Iterator[ImageInput]:
    """Paths and URLs, one a line, relative to the list's folder; as if they had been typed."""
    try:
        lines = read_regular(path, MOST_LIST).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{path}: expected a list of paths, one a line: {error}") from error
    addresses = [line.strip() for line in lines if line.strip()]
    if not addresses:
        raise AgiqaError(f"{path}: expected paths of images, one a line, found none")
    for remote, run in itertools.groupby(addresses, is_url):
        if remote:
            yield from _fetched(list(run))
        else:
            yield from (_local(path.parent / address) for address in run)


def _local(path: Path) -> ImageInput:
    return ImageInput(str(path), path, problem="" if path.exists() else "does not exist")


def _of_table(path: Path, columns: Columns) -> Iterator[ImageInput]:
    frame = read_text_csv(path)
    names = [str(name) for name in frame.columns]
    image_column = columns.image_of(names, str(path))
    prompt_column = columns.prompt_of(names, str(path))
    for row in frame.to_dict("records"):
        try:
            image = path.parent / inner_path(str(row[image_column]), str(path))
        except AgiqaError as error:
            yield ImageInput(printable(row[image_column]), problem=one_line(error))
            continue
        prompt = str(row[prompt_column]) if prompt_column else ""
        kept = {name: str(row[name]) for name in columns.kept}
        yield ImageInput(str(image), image, None, prompt, kept)


def _of_shard(
    file: BinaryIO, where: str, folder: Path | None, columns: Columns
) -> Iterator[ImageInput]:
    if where.lower().endswith(".tar"):
        return read_tar(file, where, columns)
    reader = read_parquet if where.lower().endswith(".parquet") else read_arrow
    return reader(file, where, folder, columns)


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{printable(path)}: cannot be read: {error}") from error


def _of_url(url: str, columns: Columns) -> Iterator[ImageInput]:
    """An image, a shard, or a folder of either, through fsspec."""
    import fsspec

    suffix = Path(url.split("?")[0]).suffix.lower()
    if suffix in SHARDS:
        with remote_errors("read", url), fsspec.open(url, "rb") as file:
            yield from _of_shard(cast(BinaryIO, file), shown(url), None, columns)
    elif suffix in IMAGE_SUFFIXES or url.startswith(("http://", "https://")):
        yield from _fetched([url])
    else:
        with remote_errors("list", url):
            system, root = fsspec.core.url_to_fs(url)
            paths = [system.unstrip_protocol(path) for path in sorted(system.find(root))]
        images = [path for path in paths if Path(path).suffix.lower() in IMAGE_SUFFIXES]
        shards = [path for path in paths if Path(path).suffix.lower() in SHARDS]
        if not images and not shards:
            raise AgiqaError(f"{shown(url)}: expected images or shards in it, found none")
        yield from _fetched(images)
        for shard in () if images else shards:
            yield from _of_url(shard, columns)


def _fetched(urls: Sequence[str]) -> Iterator[ImageInput]:
    """Images at URLs, some at a time, in order."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as pool:
        pending: deque[Future[ImageInput]] = deque()
        for url in urls:
            pending.append(pool.submit(_fetch, url))
            if len(pending) == AT_ONCE:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _fetch(url: str) -> ImageInput:
    import fsspec

    try:
        with remote_errors("read", url), fsspec.open(url, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except RemoteError as error:
        return ImageInput(shown(url), problem=one_line(error))
    if len(content) > MAX_BYTES:
        return ImageInput(shown(url), problem=f"has more than {MAX_BYTES:,} bytes")
    return ImageInput(shown(url), None, content)
