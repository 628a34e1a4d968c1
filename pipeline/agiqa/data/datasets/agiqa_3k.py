"""AGIQA-3K (Li et al., 2023, arXiv 2306.04717): 2,982 images of 6 generators in 10 variants, MIT.

Official layout: `data.csv` (`name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,
std_align`) beside the folder `AGIQA-3K` of .jpg files; both in one folder is accepted too. Half of
the file names hold further dots (`sd1.5_lowcorr_012.jpg`). Nine sets of files, 19 in all, are
byte-identical, across prompts and even generators.
"""

from pathlib import Path

import pandas as pd

from agiqa.data.datasets.facts import Facts, HubCopy
from agiqa.data.datasets.groups import prompt_groups
from agiqa.data.datasets.labels import numbers, require_columns
from agiqa.data.datasets.official import Download, bases, find_file, images_in, preparing
from agiqa.data.datasets.text_table import read_text_csv

FOLDER = "AGIQA-3K"
LABELS = "data.csv"
DEVIATIONS = {"quality": "quality_sd", "align": "align_sd"}
COLUMNS = {  # ours: the official column
    "quality": "mos_quality",
    "quality_sd": "std_quality",
    "align": "mos_align",
    "align_sd": "std_align",
}

FACTS = Facts(
    name="agiqa-3k",
    title="AGIQA-3K",
    images=2982,
    targets={"quality": (0, 4.489), "align": (0.021, 4.286)},
    scale=(0, 5),
    licence="MIT",
    address="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    get="follow the links at https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    hub=HubCopy(
        "chaofengc/IQA-PyTorch-Datasets",
        "e874459ad97a21e02874115a6090722c1ce19f24",
        ("AGIQA-3K.zip",),
        0.1,
        "a copy by the authors of IQA-PyTorch",
    ),
)


def find(source: Path) -> tuple[Path, Path]:
    """The labels file and the folder of images."""
    folders = bases(source, FACTS, FOLDER)
    what = f"{LABELS} beside the folder {FOLDER}"
    csv = find_file([folder / LABELS for folder in folders], what, FACTS, source)
    images = csv.parent / FOLDER
    return csv, images if images.is_dir() else csv.parent


def files(source: Path) -> tuple[list[Path], Path]:
    """The labels, and the folder of images."""
    labels, images = find(source)
    return [labels], images


def read(source: Path) -> Download:
    """Read the unpacked official download; rows stand in the order of `data.csv`."""
    csv, root = find(source)
    labels = read_text_csv(csv)
    require_columns(labels, ["name", "prompt", *COLUMNS.values()], csv)
    rows = pd.DataFrame(
        {
            "path": labels["name"],
            "prompt": labels["prompt"],
            "group": prompt_groups(labels["prompt"]),
            "generator": labels["name"].str.replace(r"_\d+\.[^.]*$", "", regex=True),
        }
    )
    for ours, column in COLUMNS.items():
        rows[ours] = numbers(labels, column, "name", csv)
    return Download(FACTS, root, rows, images_in(root, [""]), csv, DEVIATIONS)


prepare = preparing(read)
