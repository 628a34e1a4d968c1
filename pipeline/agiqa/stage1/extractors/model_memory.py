"""What was found out of models once: digests of files, what prompts can share, how many images fit.

Kept beside the models in `known.json`, which may be deleted at any time. Nothing in it goes stale:
a finding is kept by the digest of all that it follows from. Of a file that is its path, size and
times, as in git's index (`data/datasets/file_digests.py`).
"""

import hashlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agiqa.core.json_text import json_text
from agiqa.core.regular_files import file_sha256
from agiqa.core.trees import read_json
from agiqa.core.whole_files import write_file
from agiqa.data.datasets.file_digests import STEP, state
from agiqa.stage1.nano.parts import models_root
from agiqa.store import digest

log = logging.getLogger(__name__)

LEAST = 1 << 20  # bytes of a file whose digest is worth keeping
MOST = 2_000  # findings; the oldest go
AUTO = {"cpu": 16, "cuda": 64}  # images in a batch where semantic.batch_size is 0

Cause = Mapping[str, object]


def memory_file() -> Path:
    """Name the file that keeps what is known of models."""
    return models_root() / "known.json"


def recall(cause: Cause | None) -> object:
    """Give what is known to follow from `cause`; None: nothing."""
    return None if cause is None else _read().get(digest(cause))


def remember(cause: Cause | None, finding: object) -> None:
    """Keep what follows from `cause`; where the disk refuses, it will be found out again."""
    if cause is None:
        return
    file, known = memory_file(), _read() | {digest(cause): finding}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, json_text(dict(list(known.items())[-MOST:])).encode())
    except OSError as error:
        log.debug("%s: %s", file, error)


def files_as_they_are(paths: Sequence[Path], **more: object) -> Cause | None:
    """Make the cause of what follows from files' bytes; None where they have changed just now."""
    states = {name: state(name) for name in (str(path.resolve()) for path in paths)}
    known = [times for times in states.values() if times is not None]
    is_settled = all(max(times[1:]) < time.time_ns() - STEP for times in known)
    return {"files": states, **more} if is_settled and len(known) == len(states) else None


def known_sha256(path: Path) -> str:
    """Give the sha256 of a file's bytes, which are read where its size or times are new.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe or a device.
    """
    cause = files_as_they_are([path]) if path.stat().st_size >= LEAST else None
    if isinstance(known := recall(cause), str):
        return known
    sha256 = file_sha256(path)
    if cause == files_as_they_are([path]):
        remember(cause, sha256)
    return sha256


def code_sha256(*modules: str) -> str:
    """Digest source of ours that a finding depends on, by paths below the package."""
    package = Path(__file__).parents[2]
    return hashlib.sha256(b"".join((package / name).read_bytes() for name in modules)).hexdigest()


def device_name() -> str:
    """Name this process's device, such as `cpu` or `NVIDIA H200`."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def batch_size(asked: int) -> int:
    """Choose the images in a batch: `asked`, or by the kind of device where that is 0."""
    if asked:
        return asked
    import torch

    return AUTO["cuda" if torch.cuda.is_available() else "cpu"]


def fitting_size(size: int, weight: int, cause: Cause) -> int:
    """Halve `size` images of `weight` numbers as long as that is known not to fit.

    Numbers of the images' arrays, for images differ in their tokens: a large one says nothing of
    how many small ones fit. `cause`: model, type and device.
    """
    limit = _too_many(cause)
    while size > 1 and size * weight >= limit:
        size //= 2
    return size


def note_too_many(size: int, weight: int, cause: Cause) -> None:
    """Remember that `size` images of `weight` numbers do not fit."""
    remember(cause, min(size * weight, _too_many(cause)))


def _too_many(cause: Cause) -> float:
    known = recall(cause)
    return max(1, known) if isinstance(known, int) else math.inf


def _read() -> dict[str, object]:
    try:
        known = read_json(memory_file())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
