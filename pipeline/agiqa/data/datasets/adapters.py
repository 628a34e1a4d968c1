"""Data sets with an official download, one adapter each: what it looks for, and what it reads.

Each section says in which layout the owners release a data set, and keeps the order of its labels.
`official` fetches a download, looks for its parts, and holds what is read against the facts here.
"""

import logging
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, one_line, printable, some
from agiqa.core.trees import read_json
from agiqa.data.datasets.matlab import read_vector
from agiqa.data.datasets.official import (
    Adapter,
    Download,
    Facts,
    HubCopy,
    Parts,
    Unpacked,
    images_in,
    read_scores,
)
from agiqa.data.datasets.text_table import numbers, read_text_csv, read_text_sheet

logger = logging.getLogger(__name__)

# Copies that the authors of IQA-PyTorch keep of others' data sets.
iqa_pytorch = partial(
    HubCopy,
    "chaofengc/IQA-PyTorch-Datasets",
    "e874459ad97a21e02874115a6090722c1ce19f24",
    whose="a copy by the authors of IQA-PyTorch",
)


def _generators_of(names: "pd.Series[str]") -> "pd.Series[str]":
    """Cut generators out of names such as `GENERATOR_NUMBER.SUFFIX`."""
    return names.str.replace(r"_\d+\.[^.]*$", "", regex=True)


# AGIQA-3K (Li et al., 2023, arXiv 2306.04717): 2,982 images of 6 generators in 10 variants, MIT.
#
# Official layout: `data.csv` (`name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,
# std_align`) beside the folder `AGIQA-3K` of .jpg files; both in one folder is accepted too. Half
# of the file names hold further dots (`sd1.5_lowcorr_012.jpg`). Nine sets of files, 19 in all, are
# byte-identical, across prompts and even generators.
AGIQA_3K = Facts(
    name="agiqa-3k",
    title="AGIQA-3K",
    images=2982,
    targets={"quality": (0, 4.489), "align": (0.021, 4.286)},
    scale=(0, 5),
    licence="MIT",
    address="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    get="follow the links at https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    hub=iqa_pytorch(("AGIQA-3K.zip",), 0.1),
    labels_sha256="4b1945c2137e196d9378b9cf4a114de2267b97a4724f0743e260287eb2ddd6c0",
    generators=6,  # in 10 variants
    prompts=300,
    raters="21 (arXiv 2306.04717)",
    aliases=("agiqa3k",),
)


def _find_agiqa_3k(source: Path) -> Parts:
    download = Unpacked(source, AGIQA_3K, "AGIQA-3K")
    csv = download.file("data.csv", part="data.csv beside the folder AGIQA-3K")
    images = csv.parent / "AGIQA-3K"
    return Parts({"labels": csv}, images if images.is_dir() else csv.parent)


def _read_agiqa_3k(parts: Parts) -> Download:
    columns = {
        "quality": "mos_quality",
        "quality_sd": "std_quality",
        "align": "mos_align",
        "align_sd": "std_align",
    }
    labels, rows = read_scores(parts.labels["labels"], "name", columns, also=["prompt"])
    rows = rows.assign(prompt=labels["prompt"], generator=_generators_of(labels["name"]))
    return Download(parts, rows)


# AIGIQA-20K (Li et al., 2024, arXiv 2404.03407): 20,000 images of 15 generators, NTIRE 2024.
#
# Its download calls itself AIGCQA-30K-Image, some papers AIGCQA-20K. Official layout:
# `info_train.csv` (`name,prompt,mos`), `info_val.csv` and `info_test.csv` (`name,prompt`: their MOS
# is not public, so the scores are NaN), and the PNGs in `train/`, `val/` and `test/`, or all in the
# one folder. Rows stand in that order, so the first 14,000 are those that published results use.
AIGIQA_20K = Facts(
    name="aigiqa-20k",
    title="AIGIQA-20K",
    images=20_000,
    targets={"quality": (0.122, 4.981)},
    scale=(0, 5),
    licence="Apache-2.0 (tag of its page)",
    address="https://www.modelscope.cn/datasets/lcysyzxdxc/AIGCQA-30K-Image",
    get="fetch it from https://www.modelscope.cn/datasets/lcysyzxdxc/AIGCQA-30K-Image with "
    "ModelScope's own client (modelscope download --dataset lcysyzxdxc/AIGCQA-30K-Image) and "
    "unpack the images",
    generators=15,
    raters="21 (arXiv 2404.03407)",
    aliases=("aigcqa-20k", "aigciqa-20k", "aigcqa-30k-image"),
)


def _find_aigiqa_20k(source: Path) -> Parts:
    """Locate the labels, by side where they exist, and the folder of images."""
    download = Unpacked(source, AIGIQA_20K, "AIGCQA-30K-Image", "AIGIQA-20K")
    base = download.file("info_train.csv").parent
    labels = {side: base / f"info_{side}.csv" for side in ("train", "val", "test")}
    return Parts({side: path for side, path in labels.items() if path.is_file()}, base)


def _read_aigiqa_20k(parts: Parts) -> Download:
    base, sides, folders = parts.images, [], [""]
    for side, csv in parts.labels.items():
        labels = read_text_csv(csv, ["name", "prompt", *(["mos"] if side == "train" else [])])
        folder = f"{side}/" if (base / side).is_dir() else ""
        rows = pd.DataFrame({"path": folder + labels["name"], "prompt": labels["prompt"]})
        rows = rows.assign(generator=_generators_of(labels["name"]), set=side)
        rows["quality"] = numbers(labels, "mos", "name", csv) if "mos" in labels else np.nan
        sides.append(rows)
    folders += [side for side in ("train", "val", "test") if (base / side).is_dir()]
    return Download(parts, pd.concat(sides, ignore_index=True), images_in(base, folders))


# AIGCIQA2023 (Wang et al., 2023, arXiv 2307.00211): 6 generators x 100 prompts x 4 images.
#
# Official layout: `mosz1.mat`, `mosz2.mat`, `mosz3.mat` (in `DATA/MOS/` or beside the images; key
# `MOSz`, 2,400 values) are quality, authenticity and correspondence; the authors' hub copy has
# `moz1.txt` … with a number a line instead. Rows run generator by generator, prompt by prompt. The
# images are numbered from 0 in `Image/allimg/`, or in a folder for each generator
# (`Controlnet/000-1.png`); `pic-index.xlsx`, without a header, lists generator and file in the same
# order. `AIGCIQA2023_Prompts.xlsx` has `Style, Object, prompt`, in one release without the header.
#
# The scores are z-scores mapped to 0…5; an earlier release, which has them on 0…100, is refused.
# The deviations in `DATA/STD` are of the raw ratings, not on the scale of these scores, and are not
# read.
AIGCIQA2023 = Facts(
    name="aigciqa2023",
    title="AIGCIQA2023",
    images=2400,
    targets={"quality": (1.33, 3.61), "authenticity": (1.42, 3.69), "correspondence": (1.38, 3.62)},
    scale=(0, 5),
    licence="none stated",
    address="https://github.com/wangjiarui153/AIGCIQA2023",
    get="follow the links at https://github.com/wangjiarui153/AIGCIQA2023",
    hub=HubCopy(
        "IntMeGroup/AIGCIQA2023",
        "main",
        ("allimg.zip", "moz1.txt", "moz2.txt", "moz3.txt", "AIGCIQA2023_Prompts.xlsx",
         "pic-index.xlsx"),
        0.9,
        "the authors' own",
    ),
    generators=6,
    prompts=100,
    aliases=("aigciqa-2023",),
)  # fmt: skip
INSIDE = (".", "DATA/MOS", "MOS", "DATA", "Image")  # where the files may lie
NUMBERED = ("Image/allimg", "Image/allimg/allimg", "allimg", "allimg/allimg")


def _find_aigciqa2023(source: Path) -> Parts:
    """Locate scores, prompts, the index, and the folder of the download."""
    download = Unpacked(source, AIGCIQA2023, "AIGCIQA2023")

    def inside(*names: str) -> Path:
        paths = (f"{folder}/{name}" for folder in INSIDE for name in names)
        return download.file(*paths, part=names[0])

    labels = {
        target: inside(f"mosz{number}.mat", f"mosz{number}.txt", f"moz{number}.txt")
        for number, target in enumerate(AIGCIQA2023.targets, start=1)
    }
    labels["prompts"] = inside("AIGCIQA2023_Prompts.xlsx")
    return Parts(labels | {"index": inside("pic-index.xlsx")}, download.bases[-1])


def _read_aigciqa2023(parts: Parts) -> Download:
    labels, count = parts.labels, AIGCIQA2023.images
    scores = {target: read_vector(labels[target], "MOSz", count) for target in AIGCIQA2023.targets}
    prompts, index = _aigciqa_prompts(labels["prompts"]), _aigciqa_index(labels["index"])
    images, paths, present = _aigciqa_images(parts.images, index)
    rows = pd.DataFrame({"path": paths})
    rows["prompt"] = [prompts[row // 4 % 100] for row in range(count)]  # of 4 images each
    rows["generator"] = [generator for generator, _ in index]
    return Download(Parts(labels, images), rows.assign(**scores), present)


def _aigciqa_prompts(path: Path) -> list[str]:
    sheet = read_text_sheet(path, header=False)
    first = sheet.iloc[0].tolist() if len(sheet) else []
    if "prompt" in first:
        prompts = sheet[first.index("prompt")].tolist()[1:]
    elif len(sheet) == AIGCIQA2023.prompts and len(first) >= 3:
        prompts = sheet[2].tolist()
    else:
        raise AgiqaError(f"{path}: expected the columns Style, Object, prompt; found {some(first)}")
    prompts = [text for text in prompts if text.strip()]
    if len(prompts) != AIGCIQA2023.prompts:
        raise AgiqaError(f"{path}: expected {AIGCIQA2023.prompts} prompts, found {len(prompts)}")
    return prompts


def _aigciqa_index(path: Path) -> list[tuple[str, str]]:
    """Read generator and file of each row."""
    sheet = read_text_sheet(path, header=False)
    if sheet.shape[1] < 2 or len(sheet) != AIGCIQA2023.images:
        raise AgiqaError(
            f"{path}: expected {AIGCIQA2023.images:,} rows of generator and file, found "
            f"{len(sheet):,} rows of {sheet.shape[1]} columns"
        )
    return [
        (generator, file if file.endswith(".png") else f"{file}.png")
        for generator, file in zip(sheet[0], sheet[1], strict=True)
    ]


def _aigciqa_images(base: Path, index: list[tuple[str, str]]) -> tuple[Path, list[str], list[str]]:
    """Find the root, the path of each row, and all images that exist."""
    for folder in NUMBERED:
        if (base / folder).is_dir() and any((base / folder).glob("*.png")):
            root = base / folder
            return root, [f"{row}.png" for row in range(AIGCIQA2023.images)], images_in(root)
    for root in (base / "Image", base):
        folders = _generator_folders(root)
        if len(folders) >= 2:
            paths = [f"{folders.get(name, name)}/{file}" for name, file in index]
            return root, paths, images_in(root, folders.values())
    part = f"the images, in {NUMBERED[0]} or 6 generators' folders,"
    raise Unpacked(base, AIGCIQA2023).absent(part)


def _generator_folders(root: Path) -> dict[str, str]:
    """Find folders that hold `000-1.png`, by name; archives may unpack to a folder in a folder."""
    if not root.is_dir():
        return {}
    inner_folders = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for inner in (folder, folder / folder.name):
            if any(inner.glob("[0-9][0-9][0-9]-[0-9].png")):
                inner_folders[folder.name] = inner.relative_to(root).as_posix()
    return inner_folders


# AGIQA-1K (Zhang et al., 2023, arXiv 2303.12618): 1,080 images of 2 models, MIT.
#
# Official layout: `AIGC_all.csv` (`Image,Score`) from the authors' repository beside the images, or
# those in `file/`, as their archive unpacks. A name is `deepai_8_7_1_0.jpg`: service, main object,
# second object, place, style, whose words are the prompt; the services number their objects apart.
# The scores are means on 0…5 in steps of 1/22. The archive's `AIGC_MOS_Zscore.xlsx`, on which most
# papers report, has other scores (SRCC .805 between the two), one image twice and one not at all,
# and is not read. The CSV lists `dreamStudio_8_9_1_.jpg`, which the workbook calls `…_1_1.jpg`.
AGIQA_1K = Facts(
    name="agiqa-1k",
    title="AGIQA-1K",
    images=1080,
    targets={"quality": (0.0909, 5)},
    scale=(0, 5),
    licence="MIT",
    address="https://github.com/lcysyzxdxc/AGIQA-1k-Database",
    get="fetch AIGC_all.csv from https://github.com/lcysyzxdxc/AGIQA-1k-Database and follow its "
    "links to the images",
    labels_sha256="08befc166117f5b7bd9239c62ec1bda2612465ebb7d7d8b3d26c472ac1015be9",
    generators=2,
    prompts=720,
    raters="unknown; the scores are in steps of 1/22",
    aliases=("agiqa1k",),
)
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


def _find_agiqa_1k(source: Path) -> Parts:
    download = Unpacked(source, AGIQA_1K, "AGIQA-1K", "AGIQA-1k-Database")
    csv = download.file("AIGC_all.csv")
    return Parts({"labels": csv}, [csv.parent, *download.folders("file")][-1])


def _read_agiqa_1k(parts: Parts) -> Download:
    csv = parts.labels["labels"]
    _, rows = read_scores(csv, "Image", {"quality": "Score"})
    names = rows["path"].map(lambda name: MISNAMED.get(name, name))
    prompts = names.map(_agiqa_1k_prompt)
    if len(odd := names[prompts == ""]):
        raise AgiqaError(
            f"{csv}: expected names such as deepai_8_7_1_0.jpg, found "
            f"{some([printable(name) for name in odd])}: take {csv.name} from {AGIQA_1K.address}"
        )
    generators = names.str.partition("_")[0]
    return Download(parts, rows.assign(path=names, prompt=prompts, generator=generators))


def _agiqa_1k_prompt(name: str) -> str:
    """Make an image's prompt of the words that its name stands for; "" for another name."""
    service, *digits = name.removesuffix(".jpg").split("_")
    try:
        words = [texts.split(", ")[int(k)] for texts, k in zip(WORDS[service], digits, strict=True)]
    except (KeyError, ValueError, IndexError):
        return ""
    return ", ".join(words)


# EvalMuse-40K (Han et al., 2024, arXiv 2412.18150): alignment of images of 20 generators.
#
# Official layout: `train_list.json` beside `images/`, which `cat images.zip.part-* > images.zip`
# and unzip make. An entry has `prompt`, `img_path` (`LCM-SDXL/01627.png`: generator and number) and
# `total_score`, the ratings from 1 to 5 that the image's raters gave: three, six where it was rated
# again. Their mean is the MOS, their deviation and number are kept. The scores of `test.json` are
# not public, and it is not read. How many entries train_list.json has could not be seen; the paper
# says 30,000 of 40,000. Elements, structure and doubts about the prompt are left in the file.
EVALMUSE_40K = Facts(
    name="evalmuse-40k",
    title="EvalMuse-40K",
    images=0,
    targets={"alignment": (1, 5)},
    scale=(1, 5),
    licence="BSD-3-Clause (tag of its page)",
    address="https://huggingface.co/datasets/DY-Evalab/EvalMuse",
    get="fetch train_list.json and images.zip.part-* (54 GB) from "
    "https://huggingface.co/datasets/DY-Evalab/EvalMuse, join the parts and unzip them",
    generators=20,
    raters="3 or 6, counted in its labels",
    aliases=("evalmuse",),
)


def _find_evalmuse_40k(source: Path) -> Parts:
    download = Unpacked(source, EVALMUSE_40K, "EvalMuse", "dataset")
    return Parts({"labels": download.file("train_list.json")}, download.folder("images"))


def _read_evalmuse_40k(parts: Parts) -> Download:
    file = parts.labels["labels"]
    try:
        rows = pd.DataFrame([_evalmuse_row(entry) for entry in read_json(file)])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise AgiqaError(
            f"{file}: expected a list of entries with prompt, img_path and total_score, ratings "
            f"from 1 to 5 ({reason}): take the official one, {EVALMUSE_40K.address}"
        ) from error
    # The archive has the test images as well, so no image is one too many.
    return Download(parts, rows, present=())


def _evalmuse_row(entry: dict[str, object]) -> dict[str, object]:
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
        "alignment": mean(ratings),
        "alignment_sd": stdev(ratings) if len(ratings) > 1 else None,
        "alignment_raters": len(ratings),
    }


# EvalMi-50K (Wang et al., 2025, arXiv 2504.08358): 24 generators of 2025 × 2,100 prompts.
#
# Official layout: `AIGI2025_MOS_yn.xlsx` (`ImageName,MOS1,MOS2,Y/N …`) and `question.xlsx` (a
# column `prompt`, one row a prompt) from `MOS&QA/` of the authors' repository, and the images by
# generator, `DALLE3/001.png` …, here or in `AIGI2025/`. Image number n is of the n-th prompt: the
# two workbooks' counts of questions fit so in all 50,400 rows. MOS1 is perception, here `quality`,
# MOS2 is correspondence; each is of 16 raters (the paper), whose deviations are not released. How
# the hub's archives unpack could not be seen.
EVALMI_50K = Facts(
    name="evalmi-50k",
    title="EvalMi-50K",
    images=50_400,
    targets={"quality": (15.95, 73.31), "correspondence": (22.05, 70.25)},
    scale=(0, 100),
    licence="Apache-2.0 (tag of its page)",
    address="https://github.com/IntMeGroup/LMM4LMM",
    get="fetch AIGI2025_MOS_yn.xlsx and question.xlsx from "
    "https://github.com/IntMeGroup/LMM4LMM/tree/main/MOS%26QA and the images with "
    "`huggingface-cli download IntMeGroup/EvalMi-50K --repo-type dataset`",
    labels_sha256="49c98b75e5a0dd30efcb581d7453e6f3833a7e0f4b91b68e61234db48630a0d2",
    generators=24,
    prompts=2100,
    raters="16 (arXiv 2504.08358)",
)


def _find_evalmi_50k(source: Path) -> Parts:
    """Locate both workbooks and the folder of images."""
    folders = ("MOS&QA", "LMM4LMM", "LMM4LMM/MOS&QA", "EvalMi-50K")
    download = Unpacked(source, EVALMI_50K, *folders)
    labels = download.file("AIGI2025_MOS_yn.xlsx")
    parts = {"labels": labels, "prompts": download.file("question.xlsx")}
    return Parts(parts, next(iter(download.folders("AIGI2025")), source))


def _read_evalmi_50k(parts: Parts) -> Download:
    path, questions = parts.labels["labels"], parts.labels["prompts"]
    _, rows = read_scores(path, "ImageName", {"quality": "MOS1", "correspondence": "MOS2"})
    names = rows["path"]
    prompts = read_text_sheet(questions, ["prompt"])["prompt"]
    row = pd.to_numeric(names.str.extract(r"/(\d{1,6})\.png$")[0]) - 1
    if len(odd := names[~row.between(0, len(prompts) - 1)]):
        raise AgiqaError(
            f"{path}: expected names such as DALLE3/001.png with a number up to {len(prompts):,}, "
            f"the prompts of {questions.name}; found {printable(odd.iloc[0])}: take both from one "
            "release"
        )
    rows["prompt"] = prompts.iloc[row.astype(int)].to_numpy()
    rows["generator"] = names.str.partition("/")[0]
    return Download(parts, rows, present=())


# KonIQ-10k (Hosu et al., 2020, arXiv 1910.06180): 10,073 photographs, not generated images.
#
# Official layout: `koniq10k_distributions_sets.csv` from the authors' repository
# (`image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set`) beside `1024x768/` or `512x384/`; where both are
# there, the larger is read. `set` is the official side. SD is of the ratings from 1 to 5, the MOS
# on 0…100: a point of a rating is 25 points of MOS, and so the deviations are kept. `c_total`
# ratings stand behind each MOS.
KONIQ_10K = Facts(
    name="koniq-10k",
    title="KonIQ-10k",
    images=10_073,
    targets={"quality": (3.91, 88.39)},
    scale=(0, 100),
    licence="its own terms",
    address="https://database.mmsp-kn.de/koniq-10k-database.html",
    get="fetch the images from https://database.mmsp-kn.de/koniq-10k-database.html and "
    "koniq10k_distributions_sets.csv from https://github.com/subpic/koniq/tree/master/metadata",
    hub=iqa_pytorch(("koniq10k.tgz",), 6.4),
    raters="about 100, counted in its labels",
    aliases=("koniq10k",),
)
SETS = {"training": "train", "validation": "val", "test": "test"}  # official: here
POINT = 25.0  # points of MOS in a point of rating


def _find_koniq_10k(source: Path) -> Parts:
    download = Unpacked(source, KONIQ_10K, "koniq10k", "KonIQ-10k")
    csv = download.file("koniq10k_distributions_sets.csv")
    sizes = download.folders("1024x768", "512x384")
    if not sizes:
        raise download.absent("the images, in 1024x768 or 512x384,")
    if len(sizes) > 1:
        logger.info("%s: images are read from %s", KONIQ_10K.name, sizes[0])
    return Parts({"labels": csv}, sizes[0])


def _read_koniq_10k(parts: Parts) -> Download:
    csv = parts.labels["labels"]
    columns = {"quality": "MOS", "quality_sd": "SD", "quality_raters": "c_total"}
    labels, rows = read_scores(csv, "image_name", columns, also=["set"])
    odd = sorted(set(labels["set"]) - set(SETS))
    if odd:
        raise AgiqaError(f"{csv}: column set must be one of {', '.join(SETS)}; found {some(odd)}")
    rows = rows.assign(set=labels["set"].map(SETS), quality_sd=rows["quality_sd"] * POINT)
    if len(few := rows[rows["quality_raters"] < 1]):
        raise AgiqaError(
            f"{csv}: c_total counts an image's ratings and must be at least 1; found others in "
            f"{len(few):,} rows ({some([printable(path) for path in few['path']])}): take the "
            f"official labels, {KONIQ_10K.address}"
        )
    return Download(parts, rows)


# SPAQ (Fang et al., CVPR 2020): 11,125 smartphone photographs, not generated images.
#
# Official layout: `TestImage/00001.jpg` … and `Annotations/MOS and Image attribute scores.xlsx`
# (`Image name, MOS, Brightness, Colorfulness, Contrast, Noisiness, Sharpness`). Every attribute is
# a target beside the quality; all rise with it (a high noisiness means little noise).
ATTRIBUTES = ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
SPAQ_COLUMNS = {"quality": "MOS"} | {name.lower(): name for name in ATTRIBUTES}
SPAQ = Facts(
    name="spaq",
    title="SPAQ",
    images=11_125,
    targets=dict.fromkeys(SPAQ_COLUMNS, (0, 100)),
    scale=(0, 100),
    licence="research use",
    address="https://github.com/h4nwei/SPAQ",
    get="follow the links at https://github.com/h4nwei/SPAQ",
    hub=iqa_pytorch(("spaq.tgz",), 34.8),
)


def _find_spaq(source: Path) -> Parts:
    download = Unpacked(source, SPAQ, "SPAQ", "spaq")
    name = "MOS and Image attribute scores.xlsx"
    sheet = download.file(f"Annotations/{name}", f"annotations/{name}", name)
    return Parts({"labels": sheet}, download.folder("TestImage"))


def _read_spaq(parts: Parts) -> Download:
    return Download(parts, read_scores(parts.labels["labels"], "Image name", SPAQ_COLUMNS)[1])


OFFICIAL = {
    adapter.facts.name: adapter
    for adapter in (
        Adapter(AGIQA_3K, _find_agiqa_3k, _read_agiqa_3k),
        Adapter(AIGIQA_20K, _find_aigiqa_20k, _read_aigiqa_20k),
        Adapter(AIGCIQA2023, _find_aigciqa2023, _read_aigciqa2023),
        Adapter(AGIQA_1K, _find_agiqa_1k, _read_agiqa_1k),
        Adapter(EVALMUSE_40K, _find_evalmuse_40k, _read_evalmuse_40k),
        Adapter(EVALMI_50K, _find_evalmi_50k, _read_evalmi_50k),
        Adapter(KONIQ_10K, _find_koniq_10k, _read_koniq_10k),
        Adapter(SPAQ, _find_spaq, _read_spaq),
    )
}
