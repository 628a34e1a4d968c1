"""KonIQ-10k (Hosu et al., 2020, arXiv 1910.06180): 10,073 photographs, not generated images.

Official layout: `koniq10k_distributions_sets.csv` (`image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set`,
from the authors' repository) beside `1024x768/` or `512x384/`; where both are there, the larger is
read. `set` is the official side. SD is of the ratings from 1 to 5, the MOS on 0…100: a point of a
rating is 25 points of MOS, and so the deviations are kept. `c_total` ratings stand behind each MOS.
"""

import logging
from pathlib import Path

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.data.datasets.official import Download, Facts, Parts, Unpacked, iqa_pytorch, read_scores

logger = logging.getLogger(__name__)

LABELS = "koniq10k_distributions_sets.csv"
SIZES = ("1024x768", "512x384")
SETS = {"training": "train", "validation": "val", "test": "test"}  # official: here
COLUMNS = {"quality": "MOS", "quality_sd": "SD", "quality_raters": "c_total"}  # here: official
POINT = 25.0  # points of MOS in a point of rating

FACTS = Facts(
    name="koniq-10k",
    title="KonIQ-10k",
    images=10_073,
    targets={"quality": (3.91, 88.39)},
    scale=(0, 100),
    licence="its own terms",
    address="https://database.mmsp-kn.de/koniq-10k-database.html",
    get="fetch the images from https://database.mmsp-kn.de/koniq-10k-database.html and "
    f"{LABELS} from https://github.com/subpic/koniq/tree/master/metadata",
    hub=iqa_pytorch("koniq10k.tgz", 6.4),
    raters="about 100, counted in its labels",
)


def find(source: Path) -> Parts:
    """Locate the labels file and the folder of images; reads neither."""
    download = Unpacked(source, FACTS, "koniq10k", "KonIQ-10k")
    csv, sizes = download.file(LABELS), download.folders(*SIZES)
    if not sizes:
        raise download.absent(f"the images, in {' or '.join(SIZES)},")
    if len(sizes) > 1:
        logger.info("%s: images are read from %s", FACTS.name, sizes[0])
    return Parts({"labels": csv}, sizes[0])


def read(parts: Parts) -> Download:
    """Read the labels; rows stand in the order of the CSV."""
    csv = parts.labels["labels"]
    labels, rows = read_scores(csv, "image_name", COLUMNS, also=["set"])
    odd = sorted(set(labels["set"]) - set(SETS))
    if odd:
        raise AgiqaError(f"{csv}: column set must be one of {', '.join(SETS)}; found {some(odd)}")
    rows = rows.assign(set=labels["set"].map(SETS), quality_sd=rows["quality_sd"] * POINT)
    if len(few := rows[rows["quality_raters"] < 1]):
        raise AgiqaError(
            f"{csv}: c_total counts an image's ratings and must be at least 1; found others in "
            f"{len(few):,} rows ({some([printable(path) for path in few['path']])}): take the "
            f"official labels, {FACTS.address}"
        )
    return Download(FACTS, parts, rows)
