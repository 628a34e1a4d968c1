"""What torch.save wrote, out of files of anybody: nothing in them runs, nothing unpacks to more.

torch reads them with `weights_only`, so that tensors come out and no other object is made. It also
unpacks records that are compressed, which torch.save never writes: a few MB would become as many
GB. Such files are refused before torch opens them.
"""

import warnings
import zipfile
from pathlib import Path
from typing import Any

from agiqa.core.regular_files import MIB, open_regular

MOST_PICKLE = 64 * MIB  # of the names and shapes in a file


def load_torch_file(path: Path, mapped: bool = False, most: int | None = None) -> Any:
    """The tensors in a file, on the CPU, in whatever mapping or list they were saved.

    Args:
        path: the file.
        mapped: leave them on disk until they are used, where the file's layout allows it.
        most: bytes that the file may have.

    Raises:
        ValueError: no regular file, larger than `most`, or an archive that torch.save never writes.
        Exception: whatever torch raises on damage, pickle.UnpicklingError on other objects.
    """
    import torch

    with open_regular(path) as file:
        size = file.seek(0, 2)
        if most is not None and size > most:
            raise ValueError(f"{size:,} bytes, the most that such a file has are {most:,}")
        archive = zipfile.is_zipfile(file)  # what torch wrote before 1.6 is none
        if archive:
            with zipfile.ZipFile(file) as opened:
                _require_plain(opened.infolist(), size)
    with warnings.catch_warnings():  # about pickles that it then refuses
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and archive)


def _require_plain(records: list[zipfile.ZipInfo], size: int) -> None:
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ValueError("compressed records, which torch.save never writes")
    if len({record.filename for record in records}) < len(records):
        raise ValueError("two records of one name")
    if sum(record.file_size for record in records) > size:
        raise ValueError("records that are larger than the file")
    if any(r.filename.endswith("data.pkl") and r.file_size > MOST_PICKLE for r in records):
        raise ValueError(f"more than {MOST_PICKLE:,} bytes of names and shapes")
