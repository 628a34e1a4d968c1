"""Ranks of an extraction for test_processes.py, each in a process that the test may kill.

`rank_worker.py FOLDER MODEL` loads the model once and forks a rank for each line on its input,
`{"ledger": name, "environment": {…}, "stall": n}`; it prints the rank's process id. A rank
extracts FOLDER's table into its store `<ledger>.zarr`, stalls in its n-th batch if so told (the
file `<ledger>/stalled-<rank>` then appears), and leaves a file `<ledger>/ended-<rank>`.
"""

import functools
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic
from agiqa.data.datasets.table import read_table
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor
from agiqa.store import Shelf


class Stalling(ImageTextExtractor):
    """The real extractor, which stops for good in one of its batches."""

    stall, batches, sign = 0, 0, Path()

    def extract(self, *given: Any) -> Any:
        self.batches += 1
        if self.batches == self.stall:
            self.sign.touch()
            time.sleep(600)
        return super().extract(*given)


def rank(folder: Path, extractor: Stalling, job: dict[str, Any]) -> None:
    """Extract, and write what is to be known of it."""
    os.environ.update(job["environment"])
    Shelf.writer = functools.partialmethod(Shelf.writer, flush_seconds=0.0)  # each batch is safe
    name = os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0")
    ledger = folder / job["ledger"]
    ledger.mkdir(exist_ok=True)
    extractor.stall, extractor.sign = job["stall"], ledger / f"stalled-{name}"
    try:
        done = extract(
            read_table(folder), extractor, ledger.with_suffix(".zarr"), ledger=ledger, workers=1
        )
        text = json.dumps([done.images, done.cached, done.computed, done.awaited])
    except AgiqaError as error:
        text = str(error)
    (ledger / f"ended-{name}").write_text(text)


def main(folder: str, model: str) -> None:
    torch.set_num_threads(1)
    extractor = Stalling(Semantic(name="tiny", model=model, batch_size=4))
    extractor.extract([extractor.preprocess(Image.new("RGB", (32, 24)))], [0, 1])
    extractor.batches = 0
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                rank(Path(folder), extractor, json.loads(line))
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        print(child, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
