"""How many images a device takes at a time: asked for, or found out once and remembered.

What did not fit is remembered in the ledger's folder, by model, type and device, so that the next
run does not try it again.
"""

import json
import logging
from pathlib import Path

from agiqa.core.trees import read_json
from agiqa.core.whole_files import write_file
from agiqa.store import default_root

log = logging.getLogger(__name__)

AUTO = {"cpu": 16, "cuda": 64}  # where semantic.batch_size is 0
FILE = "batch-sizes.json"


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


class Remembered:
    """How much at a time one model was found to have no room for on one device.

    It is counted in numbers of the images' arrays, for images differ in their tokens: a large one
    says nothing of how many small ones fit.
    """

    def __init__(self, model: str, dtype: str, root: Path | None = None) -> None:
        self.path = (root or default_root()) / FILE
        self.key = f"{model[:16]} {dtype} {device_name()} numbers"

    def least(self, size: int, weight: int) -> int:
        """Halve `size` images of `weight` numbers as long as that is known not to fit."""
        limit = self._read().get(self.key)
        while limit is not None and size > 1 and size * weight >= limit:
            size //= 2
        return size

    def note(self, size: int, weight: int) -> None:
        """Remember that `size` images of `weight` numbers do not fit."""
        known = self._read()
        known[self.key] = min(size * weight, known.get(self.key, size * weight))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self.path, (json.dumps(known, indent=2) + "\n").encode())
        except OSError as error:  # it will be found out again
            log.debug("%s: %s", self.path, error)

    def _read(self) -> dict[str, int]:
        try:
            known = read_json(self.path)
            return {str(key): max(1, int(size)) for key, size in known.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}
