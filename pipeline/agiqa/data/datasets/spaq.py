"""SPAQ (Fang et al., CVPR 2020): 11,125 smartphone photographs, not generated images.

Official layout: `TestImage/00001.jpg` … and `Annotations/MOS and Image attribute scores.xlsx`
(`Image name, MOS, Brightness, Colorfulness, Contrast, Noisiness, Sharpness`). Every attribute is a
target beside the quality; all rise with it (a high noisiness means little noise).
"""

from functools import partial
from pathlib import Path

import pandas as pd

from agiqa.data.datasets.official import (
    Download,
    Facts,
    Parts,
    bases,
    find_file,
    find_folder,
    images_in,
    iqa_pytorch,
    prepare_download,
)
from agiqa.data.datasets.sheets import read_text_sheet
from agiqa.data.datasets.text_table import numbers, require_columns

FOLDER = "TestImage"
LABELS = "MOS and Image attribute scores.xlsx"
COLUMNS = {  # here: the official column
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
    hub=iqa_pytorch("spaq.tgz", 34.8),
)


def find(source: Path) -> Parts:
    """Locate the labels file and the folder of images; reads neither."""
    folders = bases(source, FACTS, "SPAQ", "spaq")
    inner = ("Annotations", "annotations", "")
    sheets = [folder / name / LABELS for folder in folders for name in inner]
    sheet = find_file(sheets, f"Annotations/{LABELS}", FACTS, source)
    return Parts({"labels": sheet}, find_folder(folders, FOLDER, FACTS, source))


def read(source: Path) -> Download:
    """Read the unpacked official download; rows stand in the order of the sheet."""
    parts = find(source)
    path, root = parts.labels["labels"], parts.images
    sheet = read_text_sheet(path)
    require_columns(sheet, ["Image name", *COLUMNS.values()], path)
    rows = pd.DataFrame({"path": sheet["Image name"], "prompt": "", "group": "", "generator": ""})
    for target, column in COLUMNS.items():
        rows[target] = numbers(sheet, column, "Image name", path)
    return Download(FACTS, root, rows, images_in(root, [""]), path)


prepare = partial(prepare_download, read)
