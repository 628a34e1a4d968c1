"""AIGCIQA2023 (Wang et al., 2023, arXiv 2307.00211): 6 generators x 100 prompts x 4 images.

Official layout: `mosz1.mat`, `mosz2.mat`, `mosz3.mat` (in `DATA/MOS/` or beside the images; key
`MOSz`, 2,400 values) are quality, authenticity and correspondence; the authors' hub copy has
`moz1.txt` … with a number a line instead. Rows run generator by generator, prompt by prompt. The
images are numbered from 0 in `Image/allimg/`, or in a folder for each generator
(`Controlnet/000-1.png`); `pic-index.xlsx`, without a header, lists generator and file in the same
order. `AIGCIQA2023_Prompts.xlsx` has `Style, Object, prompt`, in one release without the header.

The scores are z-scores mapped to 0…5; an earlier release has them on 0…100, times 20. The
deviations in `DATA/STD` are of the raw ratings, not on the scale of these scores, and are not read.
"""

import logging
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, some
from agiqa.data.datasets.matlab import read_vector
from agiqa.data.datasets.official import Download, Facts, HubCopy, Parts, Unpacked, images_in
from agiqa.data.datasets.sheets import read_text_sheet

logger = logging.getLogger(__name__)

KEY = "MOSz"
LABELS = {"quality": 1, "authenticity": 2, "correspondence": 3}  # the number in the file's name
PROMPTS, INDEX = "AIGCIQA2023_Prompts.xlsx", "pic-index.xlsx"
GENERATORS, TEXTS, COPIES = 6, 100, 4
IMAGES = GENERATORS * TEXTS * COPIES
INSIDE = (".", "DATA/MOS", "MOS", "DATA", "Image")  # where the files may lie
EARLIER_SCALE = (0.0, 100.0)
NUMBERED = ("Image/allimg", "Image/allimg/allimg", "allimg", "allimg/allimg")

FACTS = Facts(
    name="aigciqa2023",
    title="AIGCIQA2023",
    images=IMAGES,
    targets={"quality": (1.33, 3.61), "authenticity": (1.42, 3.69), "correspondence": (1.38, 3.62)},
    scale=(0, 5),
    licence="none stated",
    address="https://github.com/wangjiarui153/AIGCIQA2023",
    get="follow the links at https://github.com/wangjiarui153/AIGCIQA2023",
    hub=HubCopy(
        "IntMeGroup/AIGCIQA2023",
        "main",
        ("allimg.zip", "moz1.txt", "moz2.txt", "moz3.txt", PROMPTS, INDEX),
        0.9,
        "the authors' own",
    ),
    generators=GENERATORS,
    prompts=TEXTS,
)


def find(source: Path) -> Parts:
    """Locate scores, prompts, the index where it exists, and the folder of the download."""
    download = Unpacked(source, FACTS, "AIGCIQA2023")

    def inside(*names: str) -> list[str]:
        return [f"{folder}/{name}" for folder in INSIDE for name in names]

    labels = {}
    for target, number in LABELS.items():
        names = f"mosz{number}.mat", f"mosz{number}.txt", f"moz{number}.txt"
        labels[target] = download.file(*inside(*names), part=names[0])
    labels["prompts"] = download.file(*inside(PROMPTS), part=PROMPTS)
    with suppress(AgiqaError):
        labels["index"] = download.file(*inside(INDEX))
    return Parts(labels, download.bases[-1])


def read(parts: Parts) -> Download:
    """Read scores and prompts; rows stand in the order of the MAT files."""
    labels = parts.labels
    scores = {target: read_vector(labels[target], KEY, IMAGES) for target in LABELS}
    prompts = _prompts(labels["prompts"])
    index = _index(labels["index"]) if "index" in labels else None
    images, paths, generators, present = _images(parts.images, index)
    numbers = np.arange(IMAGES)
    rows = pd.DataFrame({"path": paths})
    rows["prompt"] = [prompts[row // COPIES % TEXTS] for row in numbers]
    rows["generator"] = generators
    together, scale = np.concatenate(list(scores.values())), FACTS.scale
    if together.min() > scale[1] and together.max() <= EARLIER_SCALE[1]:
        scale = EARLIER_SCALE
        logger.warning(
            "%s: the scores are on 0…100, as in an earlier release: 20 times those of today's, "
            "and kept as they are",
            FACTS.name,
        )
    return Download(FACTS, Parts(labels, images), rows.assign(**scores), present, scale)


def _prompts(path: Path) -> list[str]:
    sheet = read_text_sheet(path, header=False)
    first = sheet.iloc[0].tolist() if len(sheet) else []
    if "prompt" in first:
        prompts = sheet[first.index("prompt")].tolist()[1:]
    elif len(sheet) == TEXTS and len(first) >= 3:
        prompts = sheet[2].tolist()
    else:
        raise AgiqaError(f"{path}: expected the columns Style, Object, prompt; found {some(first)}")
    prompts = [text for text in prompts if text.strip()]
    if len(prompts) != TEXTS:
        raise AgiqaError(f"{path}: expected {TEXTS} prompts, found {len(prompts)}")
    return prompts


def _index(path: Path) -> list[tuple[str, str]]:
    """Read generator and file of each row."""
    sheet = read_text_sheet(path, header=False)
    if sheet.shape[1] < 2 or len(sheet) != IMAGES:
        raise AgiqaError(
            f"{path}: expected {IMAGES:,} rows of generator and file, found {len(sheet):,} rows of "
            f"{sheet.shape[1]} columns"
        )
    return [
        (generator, file if file.endswith(".png") else f"{file}.png")
        for generator, file in zip(sheet[0], sheet[1], strict=True)
    ]


def _images(
    base: Path, index: list[tuple[str, str]] | None
) -> tuple[Path, list[str], list[str], list[str]]:
    """Find root, path and generator of each row, and all images that exist."""
    for folder in NUMBERED:
        if (base / folder).is_dir() and any((base / folder).glob("*.png")):
            root = base / folder
            generators = [generator for generator, _ in index] if index else [""] * IMAGES
            paths = [f"{row}.png" for row in range(IMAGES)]
            return root, paths, generators, images_in(root)
    for root in (base / "Image", base):
        folders = _generators(root)
        if len(folders) >= 2:
            index = index or _in_order(sorted(folders, key=str.casefold), root)
            paths = [f"{folders.get(name, name)}/{file}" for name, file in index]
            present = images_in(root, folders.values())
            return root, paths, [name for name, _ in index], present
    part = f"the images, in {NUMBERED[0]} or {GENERATORS} generators' folders,"
    raise Unpacked(base, FACTS).absent(part)


def _generators(root: Path) -> dict[str, str]:
    """Find folders that hold `000-1.png`, by name; archives may unpack to a folder in a folder."""
    if not root.is_dir():
        return {}
    inner_folders = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for inner in (folder, folder / folder.name):
            if any(inner.glob("[0-9][0-9][0-9]-[0-9].png")):
                inner_folders[folder.name] = inner.relative_to(root).as_posix()
    return inner_folders


def _in_order(generators: list[str], root: Path) -> list[tuple[str, str]]:
    """Make the index where its file is absent: generators by name, then prompts, then copies."""
    if len(generators) != GENERATORS:
        raise AgiqaError(
            f"{root}: expected the folders of {GENERATORS} generators, found {len(generators)} "
            f"({some(generators)}): unpack all of {FACTS.title}"
        )
    return [
        (generator, f"{prompt:03d}-{copy}.png")
        for generator in generators
        for prompt in range(TEXTS)
        for copy in range(1, COPIES + 1)
    ]
