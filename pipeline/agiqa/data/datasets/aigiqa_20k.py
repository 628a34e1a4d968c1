"""AIGIQA-20K (Li et al., 2024, arXiv 2404.03407): 20,000 images of 15 generators, NTIRE 2024.

Its download calls itself AIGCQA-30K-Image, some papers AIGCQA-20K. Official layout:
`info_train.csv` (`name,prompt,mos`), `info_val.csv` and `info_test.csv` (`name,prompt`: their MOS
is not public, so the scores are NaN), and the PNGs in `train/`, `val/` and `test/`, or all in the
one folder. Rows stand in that order, so the first 14,000 are those that published results use.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from agiqa.data.datasets.facts import Facts
from agiqa.data.datasets.groups import prompt_groups
from agiqa.data.datasets.labels import numbers, require_columns
from agiqa.data.datasets.official import Download, bases, find_file, images_in, preparing
from agiqa.data.datasets.text_table import read_text_csv

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
)


def find(source: Path) -> tuple[Path, list[str]]:
    """The folder of the labels, and the sides whose labels are there."""
    folders = bases(source, FACTS, "AIGCQA-30K-Image", "AIGIQA-20K")
    train = LABELS.format(side="train")
    base = find_file([folder / train for folder in folders], train, FACTS, source).parent
    return base, [side for side in SIDES if (base / LABELS.format(side=side)).is_file()]


def files(source: Path) -> tuple[list[Path], Path]:
    """The labels of each side, and the folder of images."""
    base, sides = find(source)
    return [base / LABELS.format(side=side) for side in sides], base


def read(source: Path) -> Download:
    """Read the unpacked official download: train, then validation, then test."""
    base, sides = find(source)
    rows = pd.concat([_read_side(base, side) for side in sides], ignore_index=True)
    folders = ["", *(side for side in SIDES if (base / side).is_dir())]
    csv = base / LABELS.format(side="train")
    return Download(FACTS, base, rows, images_in(base, folders), csv)


prepare = preparing(read)


def _read_side(base: Path, side: str) -> pd.DataFrame:
    csv = base / LABELS.format(side=side)
    labels = read_text_csv(csv)
    require_columns(labels, ["name", "prompt", *(["mos"] if side == "train" else [])], csv)
    return pd.DataFrame(
        {
            "path": f"{side}/" + labels["name"] if (base / side).is_dir() else labels["name"],
            "prompt": labels["prompt"],
            "group": prompt_groups(labels["prompt"]),
            "generator": labels["name"].str.replace(r"_\d+\.[^.]*$", "", regex=True),
            "set": side,
            "quality": numbers(labels, "mos", "name", csv) if "mos" in labels else np.nan,
        }
    )
