"""The reference implementation's features into ledger and pack; `agiqa cache import-pt`.

What made them is known from their names alone, and the fingerprint says so: whoever fits on them
sees in the run's provenance that model, text and preprocessing are unknown. `fit` takes the pack
like any other; `score` cannot make such vectors of new images, and says that.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError, some
from agiqa.core.progress import track
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImage
from agiqa.store import (
    IMPORTED,
    Fingerprint,
    Shelf,
    is_free,
    read_pack_metadata,
    require_fits,
    require_replaceable,
    write_pack,
)
from agiqa.store.ledger.copying import differing
from agiqa.store.ledger.description import Description
from agiqa.store.upkeep.reference_pt import VECTORS, Matched, UnusableError, match, read_vector

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Imported:
    """What an import came to."""

    pack: Path
    images: int
    width: int
    saved_as: str  # the type of the files' numbers
    skipped: tuple[BadImage, ...]
    unused: int  # files that belong to no image


def fingerprint(vector: str, saved_as: str, source: str, model: str) -> Fingerprint:
    """What is known of such a vector, and what is not."""
    return {
        "extractor": IMPORTED,
        "vector": vector,
        "files": f"*_{vector}.pt, as MA-AGIQA's getFeature.py names them",
        "source": source or UNKNOWN,
        "model": model or UNKNOWN,
        "question": f"{UNKNOWN}; by its name the paper's '{vector}'",
        "preprocessing": UNKNOWN,
        "libraries": UNKNOWN,
        "saved_as": saved_as,
    }


def import_pt(
    folder: Path,
    table: ImagesTable,
    pack: Path,
    root: Path,
    *,
    source: str = "",
    model: str = "",
    skip_missing: bool = False,
) -> Imported:
    """Read the folder's files for the table's images into the ledger `root` and the pack.

    `source` and `model` say in the user's words where the files come from and what made them.
    AgiqaError where a file holds Python objects; images lack files or have unusable ones, without
    `skip_missing`; widths or types differ; the ledger has other numbers under the same source; the
    pack is there and was not imported. Nothing is written then.
    """
    _require_own(pack)
    matched = match(folder, table)
    ids, vectors, saved_as, unusable = _read(matched)
    bad = (*matched.bad, *unusable)
    if bad and (not skip_missing or not ids):
        named = some([f"{image.path} {image.reason}" for image in bad], 3)
        advice = "give the whole folder, or leave them out with --skip-missing"
        raise AgiqaError(
            f"{folder}: {len(bad)} of {len(bad) + len(ids)} images of '{table.name}' have no "
            f"vectors in it: {named}; {advice if ids else 'none would be left'}"
        )
    prints = [fingerprint(vector, saved_as, source, model) for vector in VECTORS]
    width, dtype = vectors.shape[-1], str(vectors.dtype)
    require_fits(root, [(folder, Description(made_by, width, dtype)) for made_by in prints])
    for index, made_by in enumerate(prints):
        if others := differing(root, made_by, ids, vectors[:, index]):
            raise AgiqaError(  # nobody could say later which of two imports is which
                f"{folder}: expected the same numbers as at an earlier import of source "
                f"'{made_by['source']}', model '{made_by['model']}', found others for "
                f"{len(others)} of {len(ids)} images; say with --source what tells the two apart"
            )
    for index, made_by in enumerate(prints):
        shelf = Shelf.open(root, made_by, width, dtype)
        if not shelf.ids().issuperset(ids):
            with shelf.writer() as writer:
                writer.add(ids, vectors[:, index])
    left_out = sorted(set(table.frame["image_id"]).difference(ids))
    write_pack(pack, IMPORTED, VECTORS, prints, ids, vectors, left_out)
    return Imported(pack, len(ids), width, saved_as, bad, matched.unused)


def _require_own(pack: Path) -> None:
    """Refuse to replace a pack whose vectors were paid for."""
    require_replaceable(pack)
    if is_free(pack):
        return
    extractor = read_pack_metadata(pack)["extractor"]
    if extractor != IMPORTED:
        raise AgiqaError(
            f"{pack}: expected nothing there, or an earlier import, found the vectors of "
            f"'{extractor}'; give another --name"
        )


def _read(matched: Matched) -> tuple[list[str], np.ndarray, str, list[BadImage]]:
    """Image ids, their vectors (N, P, D), the type they were saved as, and unusable ones."""
    ids: list[str] = []
    rows: list[np.ndarray] = []
    bad: list[BadImage] = []
    first: tuple[int, str] | None = None
    for image_id, files in track(list(matched.files.items()), "Read .pt files"):
        try:
            loaded = [read_vector(file) for file in files]
        except UnusableError as error:
            bad.append(BadImage(str(error.file), error.reason))
            continue
        for file, (vector, saved_as) in zip(files, loaded, strict=True):
            first = first or (len(vector), saved_as)
            if (len(vector), saved_as) != first:
                raise AgiqaError(
                    f"{file}: expected {first[0]} numbers of {first[1]} as in the files before it, "
                    f"found {len(vector)} of {saved_as}; import the files of one model only"
                )
        ids.append(image_id)
        rows.append(np.stack([vector for vector, _ in loaded]))
    vectors = np.stack(rows) if rows else np.empty((0, len(VECTORS), 0), np.float16)
    return ids, vectors, first[1] if first else UNKNOWN, bad
