"""`cache/<dataset>` for stage 2: here, or a copy of what a URL holds, without the images.

At the URL lies what `prepare` and `extract` wrote: images.csv, dataset.json, splits/ and packs.
"""

from collections.abc import Sequence
from pathlib import Path

from agiqa.data.datasets.table import DATASET_JSON, IMAGES_CSV
from agiqa.store import copies_folder, fetch, read_pack

SPLITS = "splits"


def at_hand(cache: Path | str, dataset: str, packs: Sequence[str]) -> Path:
    """The folder that holds `dataset`'s folder: `cache`, or of a URL that of the copies.

    Args:
        cache: a folder here, or a URL.
        dataset: its name.
        packs: names of the packs that are needed.

    Raises:
        AgiqaError: the URL cannot be read, lacks one of them, or holds a damaged one.
    """
    if isinstance(cache, Path):
        return cache
    folder = copies_folder(cache)
    for name in (IMAGES_CSV, DATASET_JSON, SPLITS):
        fetch(f"{cache.rstrip('/')}/{dataset}/{name}", folder / dataset, _whatever)
    for name in packs:
        fetch(f"{cache.rstrip('/')}/{dataset}/{name}", folder / dataset, read_pack)
    return folder


def _whatever(_: Path) -> None:
    """images.csv is compared with dataset.json, and the splits with both, when they are read."""
