"""AGIQA-3K (Li et al., 2023, arXiv 2306.04717): 2,982 images of 6 generators in 10 variants, MIT.

Official layout: `data.csv` (`name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,
std_align`) beside the folder `AGIQA-3K` of .jpg files; both in one folder is accepted too. Half of
the file names hold further dots (`sd1.5_lowcorr_012.jpg`). Nine sets of files, 19 in all, are
byte-identical, across prompts and even generators.
"""

from pathlib import Path

from agiqa.data.datasets.official import (
    Download,
    Facts,
    Parts,
    Unpacked,
    generators_of,
    iqa_pytorch,
    read_scores,
)

FOLDER = "AGIQA-3K"
LABELS = "data.csv"
COLUMNS = {  # here: the official column
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
    hub=iqa_pytorch("AGIQA-3K.zip", 0.1),
    labels_sha256="4b1945c2137e196d9378b9cf4a114de2267b97a4724f0743e260287eb2ddd6c0",
    generators=6,  # in 10 variants
    prompts=300,
    raters="21 (arXiv 2306.04717)",
)


def find(source: Path) -> Parts:
    """Locate the labels file and the folder of images; reads neither."""
    csv = Unpacked(source, FACTS, FOLDER).file(LABELS, part=f"{LABELS} beside the folder {FOLDER}")
    images = csv.parent / FOLDER
    return Parts({"labels": csv}, images if images.is_dir() else csv.parent)


def read(parts: Parts) -> Download:
    """Read the labels; rows stand in the order of `data.csv`."""
    labels, rows = read_scores(parts.labels["labels"], "name", COLUMNS, also=["prompt"])
    rows = rows.assign(prompt=labels["prompt"], generator=generators_of(labels["name"]))
    return Download(FACTS, parts, rows)
