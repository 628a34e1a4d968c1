"""The sha256 of a file: how images, weights, checkpoints and tables are known."""

import hashlib
from pathlib import Path

from agiqa.core.regular_files import open_regular


def file_sha256(path: Path | str) -> str:
    """Compute the sha256 of a regular file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe or a device.
    """
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
