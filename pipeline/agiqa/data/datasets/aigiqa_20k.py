"""AIGIQA-20K (Li et al., 2024, arXiv 2404.03407): 20,000 images of 15 generators, NTIRE 2024.

Its download calls itself AIGCQA-30K-Image, some papers AIGCQA-20K. Official layout:
`info_train.csv` (`name,prompt,mos`), `info_val.csv` and `info_test.csv` (`name,prompt`: their MOS
is not public, so the scores are NaN), and the PNGs in `train/`, `val/` and `test/`, or all in the
one folder. Rows stand in that order, so the first 14,000 are those that published results use.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from agiqa.data.datasets.official import Download, Facts, Parts, Unpacked, generators_of, images_in
from agiqa.data.datasets.text_table import numbers, read_text_csv

SIDES = ("train", "val", "test")
LABELS = "info_{side}.csv"

FACTS = Facts(
    name="aigiqa-20k",
    title="AIGIQA-20K",
    images=20_000,
    targets={"quality": (0.122, 4.981)},
    scale=(0, 5),
    licence="Apache-2.0 (tag of its page)",
    address="https://www.modelscope.cn/datasets/lcysyzxdxc/AIGCQA-30K-Image",
    get="fetch it from https://www.modelscope.cn/datasets/lcysyzxdxc/AIGCQA-30K-Image with "
    "ModelScope's own client (modelscope download --dataset lcysyzxdxc/AIGCQA-30K-Image) and "
    "unpack the images",
    generators=15,
    raters="21 (arXiv 2404.03407)",
)


def find(source: Path) -> Parts:
    """Locate the labels, by side where they exist, and the folder of images; reads neither."""
    download = Unpacked(source, FACTS, "AIGCQA-30K-Image", "AIGIQA-20K")
    base = download.file(LABELS.format(side="train")).parent
    labels = {side: base / LABELS.format(side=side) for side in SIDES}
    return Parts({side: path for side, path in labels.items() if path.is_file()}, base)


def read(parts: Parts) -> Download:
    """Read the labels: train, then validation, then test."""
    base, sides = parts.images, []
    for side, csv in parts.labels.items():
        labels = read_text_csv(csv, ["name", "prompt", *(["mos"] if side == "train" else [])])
        folder = f"{side}/" if (base / side).is_dir() else ""
        rows = pd.DataFrame({"path": folder + labels["name"], "prompt": labels["prompt"]})
        rows = rows.assign(generator=generators_of(labels["name"]), set=side)
        rows["quality"] = numbers(labels, "mos", "name", csv) if "mos" in labels else np.nan
        sides.append(rows)
    folders = ["", *(side for side in SIDES if (base / side).is_dir())]
    return Download(FACTS, parts, pd.concat(sides, ignore_index=True), images_in(base, folders))
