"""A folder in which the documentation's examples can be followed.

Tiny models stand for the big ones: `params.yaml` names one, so that `agiqa extract mine` is what
the pages say. `mine` is 45 image files with labels, `agiqa-3k` the official layout in small.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit import official_downloads
from kit.command import agiqa

IMAGES = 45


@pytest.fixture
def workspace(tmp_path: Path, tiny_lmm: Path) -> Iterator[Path]:
    """The folder, `mine` extracted in it; the process stands in it."""
    folder = tmp_path
    lines = ["file,mos,prompt,model"]
    for number in range(IMAGES):
        name = f"{number:02d}.png" if number > 1 else "ab"[number] + ".png"
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        lines.append(f"{name},{1 + number % 9 / 2},prompt {number // 3},{'ab'[number % 2]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "pictures").mkdir()
    for name in ("a.png", "b.png", "07.png"):
        shutil.copy(folder / name, folder / "pictures" / name)
    official_downloads.agiqa_3k(folder / "data" / "agiqa-3k", prompts=50)
    (folder / "params.yaml").write_text(
        f"semantic: {{model: {tiny_lmm}, batch_size: 16, workers: 0}}\n"
        f"visual: {{model: {tiny_lmm}, layers: [1, 3], image_size: 32, closeup: 48, workers: 0}}\n"
        "fit: {components: 8, semantic_components: 4, epochs: 1}\n"
        "splits: {count: 3}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("AGIQA_STORE", str(folder / "ledger"))
        patch.setenv("AGIQA_HASHES", str(folder / "hashes"))
        patch.setenv("AGIQA_DATA", str(folder / "data"))
        for command in (
            "prepare mine --from labels.csv --image-column file --score-column mos "
            "--prompt-column prompt --generator-column model",
            "extract mine",
        ):
            agiqa(*command.split())
        for name in ("usb", "other"):
            (folder / name).mkdir()
        shutil.copytree(folder / "ledger", folder / "usb/ledger")
        shutil.copytree(folder / "cache/mine/nano.zarr", folder / "other/nano.zarr")
        _smith(folder)
        yield folder


def _smith(folder: Path) -> None:
    """Three papers' splits of AGIQA-3K, in a CSV, in numbered folders and in JSON lists."""
    names = sorted(path.name for path in (folder / "data/agiqa-3k/AGIQA-3K").iterdir())
    sides = ["train"] * 60 + ["val"] * 20 + ["test"] * (len(names) - 80)
    rows = [f"{name},{side}" for name, side in zip(names, sides, strict=True)]
    (folder / "smith2024.csv").write_text("\n".join(["image,set", *rows]) + "\n")
    ipce, m3 = folder / "IPCE/Database/AGIQA-3K/1", folder / "M3-AGIQA"
    for path in (ipce, m3):
        path.mkdir(parents=True)
    for side, images in (("train", names[:80]), ("val", names[80:])):
        (ipce / f"{side}.csv").write_text("\n".join(["name,prompt", *(f"{n},x" for n in images)]))
    for side, images in (("train", names[20:]), ("test", names[:20])):
        entries = [{"image": f"/data/images/{name}"} for name in images]
        (m3 / f"{side}.jsonl").write_text(json.dumps(entries))
