"""Features that MA-AGIQA's reference code saved, read from its folder of .pt files.

github.com/wangpuyi/MA-AGIQA, getFeature.py: for each image `<name without suffix>_<vector>.pt`, a
tensor (1, D) by `torch.save`, a pickle. It is read with `weights_only`: tensors come out, and
nothing in the file runs. Each is a view of its whole batch, hence 64 KiB a file for 8 of numbers.
"""

import pickle
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.torch_files import load_torch_file
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImage

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
class Matched:
    """Which files belong to which images."""

    files: Mapping[str, tuple[Path, ...]]  # by image id, one for each of VECTORS
    bad: tuple[BadImage, ...]  # images without, or with several candidates
    unused: int  # files that belong to no image


def match(folder: Path, table: ImagesTable) -> Matched:
    """Find each image's files, by its path without the suffix or, where that is unique, its stem.

    Of byte-identical images the first that has files counts.

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
    bad_images = tuple(image for image_id, image in bad.items() if image_id not in files)
    return Matched(files, bad_images, unused)


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
