"""`agiqa extract` itself, killed with its decoding processes and resumed: the same pack."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from agiqa.store import Shelf
from agiqa.store.upkeep.verification import check_pack
from kit.stored_rows import files

IMAGES, VECTORS, KILLS = 160, 2, 3


def safe_rows(ledger: Path) -> dict[str, frozenset[str]]:
    """What a reader finds, shelf by shelf; each row is read and checked."""
    found = {}
    for path in ledger.glob("[!.]*/fingerprint.json"):
        about = json.loads(path.read_text())
        shelf = Shelf.open(ledger, about["fingerprint"], about["width"], about["dtype"])
        found[shelf.folder.name] = shelf.ids()
        shelf.read(sorted(shelf.ids()))
    return found


def segments(ledger: Path) -> int:
    """How many there are: more as rows are acknowledged."""
    return len(list(ledger.glob("[!.]*/segments/*.safetensors")))


def children(pid: int) -> list[Path]:
    """Processes that a process has started (Linux)."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [Path(f"/proc/{child}") for child in text.split()]


def test_sigkill_of_agiqa_extract(
    tmp_path: Path, tiny_lmm: Path, command_line: Callable, count: Callable
) -> None:
    pictures, cache, ledger = (tmp_path / name for name in ("pictures", "cache", "ledger"))
    pictures.mkdir()
    for row in range(IMAGES):
        pixels = np.random.default_rng(row).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{row:03d}.png")
    where = ["--cache", str(cache)]
    prepared = command_line.run("agiqa", ["prepare", "ours", "--from", str(pictures), *where], {})
    assert prepared["status"] == 0, prepared
    settings = [f"model={tiny_lmm}", "name=tiny", "batch_size=4", "workers=2"]
    command = ["extract", "ours", "--only", "semantic", *where]
    command += [f"--set=semantic.{setting}" for setting in settings]
    store = {"AGIQA_STORE": str(ledger)}

    moments, lost, kills, decoders = random.Random(2), 0, 0, 0
    while kills < KILLS:
        before = segments(ledger)
        pid = command_line.start("agiqa", command, store, True)
        if kills:  # else: soon after the start, while the model loads
            command_line.until(lambda: segments(ledger) != before)  # noqa: B023
        time.sleep(moments.uniform(0.0, 0.1))
        promised = safe_rows(ledger)
        started = children(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if command_line.wait() == 0:  # it was just ready: once more, from nothing
            shutil.rmtree(ledger)
            continue
        kills, decoders = kills + 1, decoders + len(started)
        found = safe_rows(ledger)
        lost += sum(len(ids - found.get(name, frozenset())) for name, ids in promised.items())
        until = time.monotonic() + 120
        while any(process.exists() for process in started):
            assert time.monotonic() < until, "decoding processes outlive the one that was killed"
            time.sleep(0.05)
    safe = sum(map(len, safe_rows(ledger).values()))
    assert 0 < safe <= IMAGES * VECTORS
    resumed = command_line.run("agiqa", [*command, "--json"], store)
    assert resumed["status"] == 0, resumed
    done = json.loads(resumed["out"])["semantic"]
    assert (done["cached"], done["computed"]) == (safe, IMAGES * VECTORS - safe)
    pack = cache / "ours" / "tiny.zarr"
    assert check_pack(pack).is_whole
    after_kills = files(pack)
    undisturbed = command_line.run("agiqa", command, {"AGIQA_STORE": str(tmp_path / "other")})
    assert undisturbed["status"] == 0, undisturbed
    assert files(pack) == after_kills  # computed anew in another ledger: the same to the byte
    assert decoders > 0
    count(
        kills=kills,
        decoding_processes_left=0,
        rows_acknowledged=safe,
        torn_rows=0,
        acknowledged_rows_lost=lost,
    )
    assert lost == 0
