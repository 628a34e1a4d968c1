"""`cache/<dataset>` for stage 2: here, or a copy of what a URL holds, without the images.

At the URL lies what `prepare` and `extract` wrote: images.csv, dataset.json, splits/ and packs.
"""

from collections.abc import Sequence
from pathlib import Path

from agiqa.core.urls import is_url
from agiqa.data.datasets.table import DATASET_JSON, IMAGES_CSV
from agiqa.store import TAIL, TOKENS, open_pack, read_pack
from agiqa.store.shared.remote import copies_folder, fetch

SPLITS = "splits"


def at_hand(cache: Path | str, dataset: str, packs: Sequence[str]) -> Path:
    """The folder that holds `dataset`'s folder: `cache`, or of a URL that of the copies.

    `packs` are names of those that are needed, and of a tail's weights. AgiqaError where the URL
    cannot be read, lacks one of them, or holds a damaged one.
    """
    if isinstance(cache, Path) or not is_url(cache):
        return Path(cache)
    folder, url = copies_folder(cache), f"{cache.rstrip('/')}/{dataset}"
    for name in (IMAGES_CSV, DATASET_JSON, SPLITS):  # compared with each other when they are read
        fetch(f"{url}/{name}", folder / dataset)
    for name in packs:
        check = open_pack if Path(name).stem.endswith(f"-{TOKENS}") else read_pack  # by its size
        fetch(f"{url}/{name}", folder / dataset, None if name.endswith(TAIL) else check)
    return folder
