"""SPAQ (Fang et al., CVPR 2020): 11,125 smartphone photographs, not generated images.

Official layout: `TestImage/00001.jpg` … and `Annotations/MOS and Image attribute scores.xlsx`
(`Image name, MOS, Brightness, Colorfulness, Contrast, Noisiness, Sharpness`). Every attribute is a
target beside the quality; all rise with it (a high noisiness means little noise).
"""

from pathlib import Path

import pandas as pd

from agiqa.data.datasets.facts import Facts, HubCopy
from agiqa.data.datasets.labels import numbers, require_columns
from agiqa.data.datasets.official import Download, absent, bases, find_file, images_in, preparing
from agiqa.data.datasets.sheets import read_text_sheet

FOLDER = "TestImage"
LABELS = "MOS and Image attribute scores.xlsx"
COLUMNS = {  # ours: the official column
    "quality": "MOS",
    "brightness": "Brightness",
    "colorfulness": "Colorfulness",
    "contrast": "Contrast",
    "noisiness": "Noisiness",
    "sharpness": "Sharpness",
}

FACTS = Facts(
    name="spaq",
    title="SPAQ",
    images=11_125,
    targets=dict.fromkeys(COLUMNS, (0, 100)),
    scale=(0, 100),
    licence="research use",
    address="https://github.com/h4nwei/SPAQ",
    get="follow the links at https://github.com/h4nwei/SPAQ",
    hub=HubCopy(
        "chaofengc/IQA-PyTorch-Datasets",
        "e874459ad97a21e02874115a6090722c1ce19f24",
        ("spaq.tgz",),
        34.8,
        "a copy by the authors of IQA-PyTorch",
    ),
)


def find(source: Path) -> tuple[Path, Path]:
    """The labels file and the folder of images."""
    folders = bases(source, FACTS, "SPAQ", "spaq")
    places = [folder / inner for folder in folders for inner in ("Annotations", "annotations", "")]
    sheet = find_file([p / LABELS for p in places], f"Annotations/{LABELS}", FACTS, source)
    images = next((folder / FOLDER for folder in folders if (folder / FOLDER).is_dir()), None)
    if images is None:
        raise absent(source, f"the folder {FOLDER}", FACTS)
    return sheet, images


def files(source: Path) -> tuple[list[Path], Path]:
    """The labels, and the folder of images."""
    labels, images = find(source)
    return [labels], images


def read(source: Path) -> Download:
    """Read the unpacked official download; rows stand in the order of the sheet."""
    path, root = find(source)
    sheet = read_text_sheet(path)
    require_columns(sheet, ["Image name", *COLUMNS.values()], path)
    rows = pd.DataFrame({"path": sheet["Image name"], "prompt": "", "group": "", "generator": ""})
    for target, column in COLUMNS.items():
        rows[target] = numbers(sheet, column, "Image name", path)
    return Download(FACTS, root, rows, images_in(root, [""]), path)


prepare = preparing(read)
