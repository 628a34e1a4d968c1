"""EvalMi-50K (Wang et al., 2025, arXiv 2504.08358): 24 generators of 2025 × 2,100 prompts.

Official layout: `AIGI2025_MOS_yn.xlsx` (`ImageName,MOS1,MOS2,Y/N …`) and `question.xlsx` (a column
`prompt`, one row a prompt) from `MOS&QA/` of the authors' repository, and the images by generator,
`DALLE3/001.png` …, here or in `AIGI2025/`. Image number n is of the n-th prompt: the two workbooks'
counts of questions fit so in all 50,400 rows. MOS1 is perception, here `quality`, MOS2 is
correspondence; each is of 16 raters (the paper), whose deviations are not released. How the hub's
archives unpack could not be seen.
"""

from pathlib import Path

import pandas as pd

from agiqa.core.errors import AgiqaError, printable
from agiqa.data.datasets.official import Download, Facts, Parts, Unpacked, read_scores
from agiqa.data.datasets.sheets import read_text_sheet

LABELS, PROMPTS, FOLDER = "AIGI2025_MOS_yn.xlsx", "question.xlsx", "AIGI2025"
COLUMNS = {"quality": "MOS1", "correspondence": "MOS2"}  # here: the official column

FACTS = Facts(
    name="evalmi-50k",
    title="EvalMi-50K",
    images=50_400,
    targets={"quality": (15.95, 73.31), "correspondence": (22.05, 70.25)},
    scale=(0, 100),
    licence="Apache-2.0 (tag of its page)",
    address="https://github.com/IntMeGroup/LMM4LMM",
    get=f"fetch {LABELS} and {PROMPTS} from https://github.com/IntMeGroup/LMM4LMM/tree/main/MOS%26QA"
    " and the images with `huggingface-cli download IntMeGroup/EvalMi-50K --repo-type dataset`",
    labels_sha256="49c98b75e5a0dd30efcb581d7453e6f3833a7e0f4b91b68e61234db48630a0d2",
    generators=24,
    prompts=2100,
    raters="16 (arXiv 2504.08358)",
)


def find(source: Path) -> Parts:
    """Locate both workbooks and the folder of images; reads none."""
    download = Unpacked(source, FACTS, "MOS&QA", "LMM4LMM", "LMM4LMM/MOS&QA", "EvalMi-50K")
    labels = {"labels": download.file(LABELS), "prompts": download.file(PROMPTS)}
    return Parts(labels, next(iter(download.folders(FOLDER)), source))


def read(parts: Parts) -> Download:
    """Read both workbooks; rows stand in the order of the one with the scores."""
    path = parts.labels["labels"]
    _, rows = read_scores(path, "ImageName", COLUMNS)
    names = rows["path"]
    prompts = read_text_sheet(parts.labels["prompts"], ["prompt"])["prompt"]
    row = pd.to_numeric(names.str.extract(r"/(\d{1,6})\.png$")[0]) - 1
    if len(odd := names[~row.between(0, len(prompts) - 1)]):
        raise AgiqaError(
            f"{path}: expected names such as DALLE3/001.png with a number up to {len(prompts):,}, "
            f"the prompts of {PROMPTS}; found {printable(odd.iloc[0])}: take both from one release"
        )
    rows["prompt"] = prompts.iloc[row.astype(int)].to_numpy()
    rows["generator"] = names.str.partition("/")[0]
    return Download(FACTS, parts, rows, present=())
