"""What the ledger knows a pack's rows by, where a question holds the image's own prompt.

The images table beside the pack says the prompts. It may have changed since the pack was written,
so the feature store compares the row ids made here with the digest that the pack has of its own.
"""

import logging
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import DATASET_JSON, read_table
from agiqa.data.prompts import IMAGE_PROMPT
from agiqa.store import digest, read_pack_metadata
from agiqa.store.row_ids import prompted_row_id, sources_of

log = logging.getLogger(__name__)


def own_prompt_rows(pack: Path) -> dict[str, dict[str, str]]:
    """Row id by image id, for each such vector by the digest of its fingerprint.

    Empty ones where no usable images table lies beside the pack: `add_pack` then takes none of
    these vectors.
    """
    metadata = read_pack_metadata(pack)
    recorded = metadata.get("row_ids", {})
    digests = [
        digest(fingerprint)
        for name, fingerprint in zip(metadata["names"], metadata["fingerprints"], strict=True)
        if name in recorded or IMAGE_PROMPT in str(fingerprint.get("prompt"))
    ]
    if not digests:
        return {}
    known: dict[str, str] = {}
    if (pack.parent / DATASET_JSON).is_file():
        try:
            table = read_table(pack.parent)
        except AgiqaError as error:
            log.warning("%s", error)
        else:
            known = {
                name: prompted_row_id(name, source.image_prompt)
                for name, source in sources_of(table).items()
            }
    return dict.fromkeys(digests, known)
