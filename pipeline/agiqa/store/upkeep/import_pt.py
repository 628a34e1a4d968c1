"""The reference implementation's features into ledger and pack; `agiqa cache import-pt`.

github.com/wangpuyi/MA-AGIQA, getFeature.py: for each image `<name without suffix>_<vector>.pt`, a
tensor (1, D) by `torch.save`, a pickle. It is read with `weights_only`: tensors come out, and
nothing in the file runs. Each is a view of its whole batch, hence 64 KiB a file for 8 of numbers.

What made them is known from their names alone, and the fingerprint says so: whoever fits on them
sees in the run's provenance that model, text and preprocessing are unknown. `fit` takes the pack
like any other; `score` cannot make such vectors of new images, and says that.
"""

import pickle
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError, one_line, some
from agiqa.core.progress import track
from agiqa.core.weight_files import load_torch_file
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImage
from agiqa.store import (
    IMPORTED,
    Fingerprint,
    Shelf,
    add_pack,
    is_free,
    read_pack_metadata,
    require_replaceable,
    write_pack,
)
from agiqa.store.ledger.shelf import DESCRIPTION, Description, shelf_folder
from agiqa.store.rows import id_bytes, row_checksums
from agiqa.store.upkeep.merge import differing, require_fits

UNKNOWN = "unknown"
VECTORS = ("semantic_content", "coherence")
DTYPES = {"float16": "float16", "bfloat16": "float32", "float32": "float32"}  # saved as: kept as
MOST_BYTES = 256 << 20  # of a file: a vector of a large batch is saved with all of it
MOST_NUMBERS = 1 << 20  # in one vector; a tensor's shape may promise any number


class UnusableError(AgiqaError):
    """One file whose vector cannot be used; `reason` says why, the message names the file."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file, self.reason = file, reason


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
    files, unmatched, unused = match(folder, table)
    ids, vectors, saved_as, unusable = _read(files)
    bad = (*unmatched, *unusable)
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
        shelf = shelf_folder(root, made_by)
        present = Shelf.at(shelf).checksums() if (shelf / DESCRIPTION).exists() else {}
        offered = zip(ids, row_checksums(id_bytes(ids), vectors[:, index]), strict=True)
        if others := differing(dict(offered), present):
            raise AgiqaError(  # nobody could say later which of two imports is which
                f"{folder}: expected the same numbers as at an earlier import of source "
                f"'{made_by['source']}', model '{made_by['model']}', found others for "
                f"{len(others)} of {len(ids)} images; say with --source what tells the two apart"
            )
    left_out = sorted(set(table.frame["image_id"]).difference(ids))
    write_pack(pack, IMPORTED, VECTORS, prints, ids, vectors, left_out)
    add_pack(pack, root)
    return Imported(pack, len(ids), width, saved_as, bad, unused)


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


def _read(
    files_of: Mapping[str, Sequence[Path]],
) -> tuple[list[str], np.ndarray, str, list[BadImage]]:
    """Image ids, their vectors (N, P, D), the type they were saved as, and unusable ones."""
    ids: list[str] = []
    rows: list[np.ndarray] = []
    bad: list[BadImage] = []
    first: tuple[int, str] | None = None
    for image_id, files in track(list(files_of.items()), "Read .pt files"):
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


def match(
    folder: Path, table: ImagesTable
) -> tuple[dict[str, tuple[Path, ...]], list[BadImage], int]:
    """Find each image's files, by its path without the suffix or, where that is unique, its stem.

    By image id, a file for each of VECTORS; then images without, or with several candidates; then
    how many files belong to no image. Of byte-identical images the first that has files counts.

    Raises:
        AgiqaError: no such folder, or no such files in it.
    """
    if not folder.is_dir():
        raise AgiqaError(f"{folder}: expected a folder of *_{VECTORS[0]}.pt files, found none")
    files_of = {vector: _Files(folder, vector) for vector in VECTORS}
    if empty := [vector for vector in VECTORS if not files_of[vector].by_key]:
        file_count = len(list(folder.rglob("*.pt")))
        raise AgiqaError(
            f"{folder}: expected files named *_{VECTORS[0]}.pt and *_{VECTORS[1]}.pt, found none "
            f"named *_{empty[0]}.pt among {file_count} .pt files; name the folder that MA-AGIQA's "
            "getFeature.py wrote (its tensor_root)"
        )
    paths = list(zip(table.frame["image_id"], table.frame["path"], strict=True))
    owners: defaultdict[str, set[str]] = defaultdict(set)  # image ids by path without suffix
    for image_id, path in paths:
        owners[_key(path)].add(image_id)
    stems = Counter(_stem(key) for key in owners)
    files: dict[str, tuple[Path, ...]] = {}
    bad: dict[str, BadImage] = {}
    for image_id, path in paths:
        key = _key(path)
        clear = len(owners[key]) == 1, stems[_stem(key)] == 1
        choices = [files_of[vector].choose(key, *clear) for vector in VECTORS]
        wrong = [
            f"{reason} *_{vector}.pt"
            for vector, reason in zip(VECTORS, choices, strict=True)
            if isinstance(reason, str)
        ]
        if wrong:
            bad.setdefault(image_id, BadImage(path, "has " + " and ".join(wrong)))
        else:
            files.setdefault(image_id, tuple(file for file in choices if isinstance(file, Path)))
    used = {file for paths in files.values() for file in paths}
    unused = sum(len(vector_files.by_key) for vector_files in files_of.values()) - len(used)
    return files, [image for image_id, image in bad.items() if image_id not in files], unused


class _Files:
    """The files of one vector, by their path in the folder without the ending, and by its stem."""

    def __init__(self, folder: Path, vector: str) -> None:
        ending = f"_{vector}.pt"
        self.by_key = {
            file.relative_to(folder).as_posix().removesuffix(ending): file
            for file in sorted(folder.rglob(f"*{ending}"))
        }
        self.by_stem: defaultdict[str, list[Path]] = defaultdict(list)
        for key, file in self.by_key.items():
            self.by_stem[_stem(key)].append(file)

    def choose(self, key: str, one_path: bool, one_stem: bool) -> Path | str:
        """The file of an image, or what is wrong, in words that `*_<vector>.pt` may follow.

        `one_path` and `one_stem` say whether no other image has its path, or its stem.
        """
        candidates = [self.by_key[key]] if key in self.by_key else self.by_stem.get(_stem(key), [])
        if not candidates:
            return "no"
        if not one_path or (key not in self.by_key and not one_stem):
            return "the name of another image, too, so it is not clear whose is"
        return candidates[0] if len(candidates) == 1 else f"{len(candidates)} candidates for"


def _key(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _stem(key: str) -> str:
    return PurePosixPath(key).name


def read_vector(file: Path) -> tuple[np.ndarray, str]:
    """The vector `(D,)` in a file, in a type that the store takes, and the type it was saved as.

    Raises:
        UnusableError: damaged or truncated, not one vector of floats, or not finite.
        AgiqaError: it holds Python objects, which could run code; nothing of it was run.
    """
    import torch

    tensor = _load(file)
    if not isinstance(tensor, torch.Tensor):
        raise UnusableError(file, f"expected a tensor, found {type(tensor).__name__}")
    shape, kind = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if kind not in DTYPES or not plain:
        raise UnusableError(file, f"expected a dense tensor of {', '.join(DTYPES)}, found {kind}")
    if not shape or max(shape) != tensor.numel() or not 0 < tensor.numel() <= MOST_NUMBERS:
        raise UnusableError(file, f"expected one vector (1, D), found shape {shape}")
    vector = tensor.detach().reshape(-1).to(getattr(torch, DTYPES[kind])).numpy()
    if not np.isfinite(vector).all():
        raise UnusableError(file, "expected finite numbers, found NaN or infinity")
    return vector, kind


def _load(file: Path) -> Any:
    if not file.is_file():
        raise UnusableError(file, "expected a file, found something else")
    try:
        return load_torch_file(file, most=MOST_BYTES)
    except Exception as error:  # damage shows in as many ways as there are bytes
        if isinstance(error, pickle.UnpicklingError):
            raise AgiqaError(
                f"{file}: expected a tensor as torch.save writes it, found Python objects, which "
                "could run code when loaded, or no pickle at all: nothing of it was run, and "
                "nothing of the folder was imported. Find out where it comes from, and remove it."
            ) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise UnusableError(file, f"cannot be read: {error.strerror}") from error
        raise UnusableError(
            file, f"damaged or truncated ({type(error).__name__}: {one_line(error)[:80]})"
        ) from error
