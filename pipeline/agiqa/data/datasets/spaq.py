"""SPAQ (Fang et al., CVPR 2020): 11,125 smartphone photographs, not generated images.

Official layout: `TestImage/00001.jpg` … and `Annotations/MOS and Image attribute scores.xlsx`
(`Image name, MOS, Brightness, Colorfulness, Contrast, Noisiness, Sharpness`). Every attribute is a
target beside the quality; all rise with it (a high noisiness means little noise).
"""

from pathlib import Path

from agiqa.data.datasets.official import Download, Facts, Parts, Unpacked, iqa_pytorch, read_scores

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
    download = Unpacked(source, FACTS, "SPAQ", "spaq")
    sheet = download.file(f"Annotations/{LABELS}", f"annotations/{LABELS}", LABELS)
    return Parts({"labels": sheet}, download.folder(FOLDER))


def read(parts: Parts) -> Download:
    """Read the sheet; rows stand in its order."""
    _, rows = read_scores(parts.labels["labels"], "Image name", COLUMNS)
    return Download(FACTS, parts, rows)
