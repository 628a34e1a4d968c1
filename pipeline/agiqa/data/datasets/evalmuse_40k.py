"""EvalMuse-40K (Han et al., 2024, arXiv 2412.18150): alignment of images of 20 generators.

Official layout: `train_list.json` beside `images/`, which `cat images.zip.part-* > images.zip` and
unzip make. An entry has `prompt`, `img_path` (`LCM-SDXL/01627.png`: generator and number) and
`total_score`, the ratings from 1 to 5 that the image's raters gave: three, six where it was rated
again. Their mean is the MOS, their deviation and number are kept. The scores of `test.json` are not
public, and it is not read. How many entries train_list.json has could not be seen; the paper says
30,000 of 40,000. Elements, structure and doubts about the prompt are left in the file.
"""

from pathlib import Path
from statistics import mean, stdev

import pandas as pd

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.trees import read_json
from agiqa.data.datasets.official import Download, Facts, Parts, Unpacked

LABELS, FOLDER = "train_list.json", "images"
ALIGNMENT, DEVIATION, RATERS = "alignment", "alignment_sd", "alignment_raters"

FACTS = Facts(
    name="evalmuse-40k",
    title="EvalMuse-40K",
    images=0,
    targets={ALIGNMENT: (1, 5)},
    scale=(1, 5),
    licence="BSD-3-Clause (tag of its page)",
    address="https://huggingface.co/datasets/DY-Evalab/EvalMuse",
    get=f"fetch {LABELS} and images.zip.part-* (54 GB) from "
    "https://huggingface.co/datasets/DY-Evalab/EvalMuse, join the parts and unzip them",
    generators=20,
    raters="3 or 6, counted in its labels",
)


def find(source: Path) -> Parts:
    """Locate the labels file and the folder of images; reads neither."""
    download = Unpacked(source, FACTS, "EvalMuse", "dataset")
    return Parts({"labels": download.file(LABELS)}, download.folder(FOLDER))


def read(parts: Parts) -> Download:
    """Read the labels; rows stand in their order."""
    file = parts.labels["labels"]
    try:
        entries = read_json(file)
        rows = pd.DataFrame([_row(entry) for entry in entries])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise AgiqaError(
            f"{file}: expected a list of entries with prompt, img_path and total_score, ratings "
            f"from 1 to 5 ({reason}): take the official one, {FACTS.address}"
        ) from error
    # The archive has the test images as well, so no image is one too many.
    return Download(FACTS, parts, rows, present=())


def _row(entry: dict[str, object]) -> dict[str, object]:
    """Make a row of an entry; KeyError, ValueError or another where it is none."""
    path, prompt, ratings = str(entry["img_path"]), entry["prompt"], entry["total_score"]
    if not isinstance(prompt, str) or not isinstance(ratings, list) or not ratings:
        raise ValueError(f"entry {path} has no prompt or no ratings")
    if not all(isinstance(rating, int) and 1 <= rating <= 5 for rating in ratings):
        raise ValueError(f"entry {path} has the ratings {ratings}")
    return {
        "path": path,
        "prompt": prompt,
        "generator": path.partition("/")[0],
        ALIGNMENT: mean(ratings),
        DEVIATION: stdev(ratings) if len(ratings) > 1 else None,
        RATERS: len(ratings),
    }
