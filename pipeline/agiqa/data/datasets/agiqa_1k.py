"""AGIQA-1K (Zhang et al., 2023, arXiv 2303.12618): 1,080 images of 2 models, MIT.

Official layout: `AIGC_all.csv` (`Image,Score`) from the authors' repository beside the images, or
those in `file/`, as their archive unpacks. A name is `deepai_8_7_1_0.jpg`: service, main object,
second object, place, style, whose words are the prompt; the services number their objects apart.
The scores are means on 0…5 in steps of 1/22. The archive's `AIGC_MOS_Zscore.xlsx`, on which most
papers report, has other scores (SRCC .805 between the two), one image twice and one not at all, and
is not read. The CSV lists `dreamStudio_8_9_1_.jpg`, which the workbook calls `…_1_1.jpg`.
"""

from pathlib import Path

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.data.datasets.official import Download, Facts, Parts, Unpacked, read_scores

LABELS, FOLDER = "AIGC_all.csv", "file"
MISNAMED = {"dreamStudio_8_9_1_.jpg": "dreamStudio_8_9_1_1.jpg"}  # in the CSV: as a file
MAIN = "bird, cat, dog, batman, snoppy, teddy bear, kid, man, woman, alien, demon, witch"
SECOND = (
    "driving aircraft, driving bike, driving car, having hamburger, having icecream, having pizza, "
    "playing baseball, playing football, playing yoga, using CD, using laptop, using phone, "
    "wearing coat, wearing hat, wearing shirt"
)
LATER = SECOND[SECOND.index("having pizza") :]
END = ("city, wild", "anime style, realistic style")
WORDS = {  # by service: what each number in a name counts
    "deepai": (MAIN, SECOND, *END),
    "dreamStudio": ("bird, cat, dog, batman, snoppy, teddy bear, man, woman, alien", LATER, *END),
}

FACTS = Facts(
    name="agiqa-1k",
    title="AGIQA-1K",
    images=1080,
    targets={"quality": (0.0909, 5)},
    scale=(0, 5),
    licence="MIT",
    address="https://github.com/lcysyzxdxc/AGIQA-1k-Database",
    get=f"fetch {LABELS} from https://github.com/lcysyzxdxc/AGIQA-1k-Database and follow its links "
    "to the images",
    labels_sha256="08befc166117f5b7bd9239c62ec1bda2612465ebb7d7d8b3d26c472ac1015be9",
    generators=2,
    prompts=720,
    raters="unknown; the scores are in steps of 1/22",
)


def find(source: Path) -> Parts:
    """Locate the labels file and the folder of images; reads neither."""
    download = Unpacked(source, FACTS, "AGIQA-1K", "AGIQA-1k-Database")
    csv = download.file(LABELS)
    return Parts({"labels": csv}, [csv.parent, *download.folders(FOLDER)][-1])


def read(parts: Parts) -> Download:
    """Read the labels; rows stand in the order of the CSV."""
    csv = parts.labels["labels"]
    _, rows = read_scores(csv, "Image", {"quality": "Score"})
    names = rows["path"].map(lambda name: MISNAMED.get(name, name))
    prompts = names.map(_prompt)
    if len(odd := names[prompts == ""]):
        raise AgiqaError(
            f"{csv}: expected names such as deepai_8_7_1_0.jpg, found "
            f"{some([printable(name) for name in odd])}: take {LABELS} from {FACTS.address}"
        )
    rows = rows.assign(path=names, prompt=prompts, generator=names.str.partition("_")[0])
    return Download(FACTS, parts, rows)


def _prompt(name: str) -> str:
    """Make an image's prompt of the words that its name stands for; "" for another name."""
    service, *digits = name.removesuffix(".jpg").split("_")
    try:
        words = [texts.split(", ")[int(k)] for texts, k in zip(WORDS[service], digits, strict=True)]
    except (KeyError, ValueError, IndexError):
        return ""
    return ", ".join(words)
