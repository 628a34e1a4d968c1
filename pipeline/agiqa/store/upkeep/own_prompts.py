"""What the ledger knows a pack's rows by, where a question holds the image's own prompt.

Such a pack has its rows by image and prompt. A vector in it whose question does not hold the prompt
is known to the ledger by the image alone; in packs of earlier versions every row was. The images
table says which image and prompt a row is of. It may have changed since the pack was written, so
`add_pack` compares.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import DATASET_JSON, read_table
from agiqa.data.prompts import IMAGE_PROMPT
from agiqa.store import digest, open_pack, read_pack_metadata
from agiqa.store.packs.pack_layout import is_by_prompt
from agiqa.store.row_ids import Source, sources_of
from agiqa.store.unpacking import RowIds

log = logging.getLogger(__name__)


def own_prompt_rows(
    pack: Path, ids: Sequence[str] = (), sources: Iterable[Source] | None = None
) -> RowIds:
    """List by vector what the ledger knows rows by, where that is another id than the pack's.

    Args:
        pack: its metadata is read.
        ids: of its rows; by default they are read, too.
        sources: the rows of the images table, by image and prompt; by default of the table beside
            the pack. Without a usable one the ids are empty, and `add_pack` takes none of them.

    Raises:
        PackError: the pack is absent, foreign, newer or damaged.
    """
    metadata = read_pack_metadata(pack)
    digests = dict(zip(metadata["names"], map(digest, metadata["fingerprints"]), strict=True))
    prompted = {
        key
        for (name, key), fingerprint in zip(digests.items(), metadata["fingerprints"], strict=True)
        if name in metadata.get("row_ids", {}) or IMAGE_PROMPT in str(fingerprint.get("prompt"))
    }
    if not prompted:
        return {}
    if sources is None:
        sources = _sources_beside(pack)
    if is_by_prompt(metadata, ids or open_pack(pack).image_ids):
        image_ids = {source.row_id: source.image_id for source in sources}
        return dict.fromkeys(set(digests.values()) - prompted, image_ids)
    row_ids: dict[str, str] = {}
    for source in sources:
        row_ids.setdefault(source.image_id, source.row_id)
    return dict.fromkeys(prompted, row_ids)


def _sources_beside(pack: Path) -> Iterable[Source]:
    if not (pack.parent / DATASET_JSON).is_file():
        return ()
    try:
        table = replace(read_table(pack.parent), root=Path())  # no image is opened
        return sources_of(table, by_prompt=True).values()
    except AgiqaError as error:
        log.warning("%s", error)
        return ()
