"""Official downloads in small: the files, names, columns and folders of the real ones, tiny images.

Small but complete in kind: the MAT files have all 2,400 rows, since a file of any other length is
not the official format; of the others a few rows suffice. The first rows are the real ones.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.io import savemat

AIGIQA_GENERATORS = ("DALLE2", "SD1.5", "midjourney_v5.2")
AIGCIQA_GENERATORS = (
    "Controlnet",
    "DALLE",
    "Glide",
    "Lafite",
    "stable-diffusion",
    "Unidiffuser",
)
AIGCIQA_FIRST = (3.00820892, 2.36232704, 2.99929367)
KONIQ_ROWS = (
    "10004473376.jpg,0.0,0.0,0.238095238095,0.695238095238,0.0666666666667,105,77.3836206897,"
    "0.527277894494,training",
    "10007357496.jpg,0.0,0.03125,0.46875,0.489583333333,0.0104166666667,96,68.7285714286,"
    "0.580003024795,test",
)


def image(path: Path, number: int) -> None:
    """A tiny image of one colour: another number, other bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (number % 256, number // 256 % 256, 128)
    own = {"comment": str(number)} if path.suffix == ".jpg" else {}  # JPEG rounds colours
    Image.new("RGB", (8, 8), colour).save(path, **own)


def agiqa_3k(folder: Path, prompts: int = 6) -> Path:
    """`data.csv` beside `AGIQA-3K/`: two generators, `prompts` prompts."""
    rows = []
    for generator in ("AttnGAN_normal", "sd1.5_lowcorr"):
        for prompt in range(prompts):
            name, number = f"{generator}_{prompt:03d}.jpg", len(rows)
            image(folder / "AGIQA-3K" / name, number)
            quality, align = 0.5 + 0.3 * (number % 12), 0.4 + 0.3 * (number % 11)
            rows.append([name, f"prompt {prompt}", "", "", "anime", quality, 0.2, align, 0.6])
    columns = ["name", "prompt", "adj1", "adj2", "style"]
    columns += ["mos_quality", "std_quality", "mos_align", "std_align"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "data.csv", index=False)
    return folder


def aigiqa_20k(folder: Path, prompts: int = 6, flat: bool = False) -> Path:
    """`info_*.csv` and the PNGs in a folder for each side, or all in the one."""
    number = 1000
    for side, share in (("train", prompts), ("val", 2), ("test", 3)):
        rows = []
        for generator in AIGIQA_GENERATORS:
            for each in range(share):
                name = f"{generator}_{number:04d}.png"
                image(folder / ("" if flat else side) / name, number)
                mos = [0.2 + 0.25 * (number % 19)] if side == "train" else []
                rows.append([name, f"a {side} prompt, number {each}", *mos])
                number += 1
        columns = ["name", "prompt", "mos"][: len(rows[0])]
        pd.DataFrame(rows, columns=columns).to_csv(folder / f"info_{side}.csv", index=False)
    return folder


def aigciqa2023(
    folder: Path, layout: str = "numbered", index: bool = True, one_image_a_prompt: bool = False
) -> Path:
    """2,400 images, MAT files in `DATA/MOS`, prompts and the index.

    Args:
        folder: to make.
        layout: of the images: numbered (`Image/allimg/0.png`) or generators
            (`Image/Controlnet/000-1.png`).
        index: whether `pic-index.xlsx` is there.
        one_image_a_prompt: the images of a prompt are byte-identical, so that there are only 100.
    """
    for row, (generator, name) in enumerate(aigciqa_order()):
        place = f"allimg/{row}.png" if layout == "numbered" else f"{generator}/{name}"
        image(folder / "Image" / place, 5000 + (row // 4 % 100 if one_image_a_prompt else row))
    write_aigciqa_labels(folder)
    if index:
        listed = pd.DataFrame(aigciqa_order())
        listed.to_excel(folder / "pic-index.xlsx", header=False, index=False)
    return folder


def write_aigciqa_labels(folder: Path) -> None:
    """`DATA/MOS/mosz*.mat` and the prompts."""
    (folder / "DATA" / "MOS").mkdir(parents=True, exist_ok=True)
    for number, scores in enumerate(aigciqa_scores(), start=1):
        savemat(folder / f"DATA/MOS/mosz{number}.mat", {"MOSz": scores[:, None]})
    texts = ["a corgi", *(f"prompt {number}" for number in range(1, 100))]
    prompts = pd.DataFrame({"Style": "Basic", "Object": "Animals", "prompt": texts})
    prompts.to_excel(folder / "AIGCIQA2023_Prompts.xlsx", index=False)


def aigciqa_scores() -> list[np.ndarray]:
    """Quality, authenticity and correspondence of the 2,400 images."""
    scores = np.random.default_rng(0).uniform(1.5, 3.6, (3, 2400))
    scores[:, 0] = AIGCIQA_FIRST
    return list(scores)


def aigciqa_order() -> list[tuple[str, str]]:
    """Generator and file of every row."""

    def rows() -> Iterator[tuple[str, str]]:
        for generator in AIGCIQA_GENERATORS:
            for prompt in range(100):
                for copy in range(1, 5):
                    yield generator, f"{prompt:03d}-{copy}.png"

    return list(rows())


def koniq_10k(folder: Path, images: int = 20, sizes: tuple[str, ...] = ("1024x768",)) -> Path:
    """`koniq10k_distributions_sets.csv` beside folders of JPEGs."""
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set"
    rows = list(KONIQ_ROWS)
    for number in range(len(rows), images):
        side = ("training", "training", "validation", "test")[number % 4]
        rows.append(f"{10010000000 + number}.jpg,0,0,0.5,0.5,0,100,{20 + 3 * number},0.5,{side}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "koniq10k_distributions_sets.csv").write_text("\n".join([header, *rows]) + "\n")
    for size in sizes:
        for number, row in enumerate(rows):
            image(folder / size / row.partition(",")[0], 8000 + number + 100 * sizes.index(size))
    return folder


def spaq(folder: Path, images: int = 20) -> Path:
    """`TestImage/` and the sheet in `Annotations/`."""
    rows = []
    for number in range(images):
        name = f"{number + 1:05d}.jpg"
        image(folder / "TestImage" / name, 9000 + number)
        mos = 100 * number / (images - 1)
        rows.append([name, mos, *(abs(mos - each) for each in (5.5, 10, 15, 20, 25))])
    columns = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness"]
    sheet = pd.DataFrame(rows, columns=[*columns, "Sharpness"])
    (folder / "Annotations").mkdir(parents=True)
    sheet.to_excel(folder / "Annotations" / "MOS and Image attribute scores.xlsx", index=False)
    return folder


def agiqa_1k(folder: Path) -> Path:
    """`AIGC_all.csv` beside `file/`: images of both services, one of them misnamed in the CSV."""
    rows = []
    names = [
        f"{service}_{n}_{n}_{n % 2}_1" for service in ("deepai", "dreamStudio") for n in range(8)
    ]
    for number, name in enumerate([*names, "dreamStudio_8_9_1_1"]):
        image(folder / "file" / f"{name}.jpg", 11_000 + number)
        listed = name.removesuffix("1") if name == "dreamStudio_8_9_1_1" else name
        rows.append(f"{listed}.jpg,{(40 + 4 * number) / 22:.9f}")
    (folder / "AIGC_all.csv").write_text("\n".join(["Image,Score", *rows]) + "\n")
    return folder


def evalmuse_40k(folder: Path, prompts: int = 8) -> Path:
    """`train_list.json` beside `images/`, with a test image that no label is public for."""
    entries = []
    for number in range(2 * prompts):
        path = f"{('LCM-SDXL', 'SD1.5')[number % 2]}/{number:05d}.png"
        image(folder / "images" / path, 12_000 + number)
        ratings = [1 + number % 5, 1 + (number + 1) % 5, 1 + number % 4]
        entries.append(
            {
                "prompt_id": str(number // 2),
                "prompt": f"prompt {number // 2}",
                "type": "synthetic",
                "img_path": path,
                "total_score": ratings * (1 + (number == 3)),  # one was rated again
                "element_score": {"corgi (animal)": [1, 0, 1]},
                "promt_meaningless": [0, 0, 0],
            }
        )
    image(folder / "images" / "SDXL" / "09999.png", 12_999)
    (folder / "train_list.json").write_text(json.dumps(entries))
    return folder


def evalmi_50k(folder: Path, prompts: int = 8) -> Path:
    """Both workbooks beside `AIGI2025/`, a folder of images for each generator."""
    rows = []
    for generator in ("DALLE3", "vila-u"):
        for number in range(1, prompts + 1):
            name = f"{generator}/{number:03d}.png"
            image(folder / "AIGI2025" / name, 13_000 + len(rows))
            rows.append([name, 16.5 + 3 * len(rows), 23 + 2.5 * len(rows), number % 2])
    columns = ["ImageName", "MOS1", "MOS2", "Y/N"]
    pd.DataFrame(rows, columns=columns).to_excel(folder / "AIGI2025_MOS_yn.xlsx", index=False)
    texts = [f"a photo of a {number}" for number in range(prompts)]
    questions = pd.DataFrame({"prompt": texts, "question_1": "Is it there?"})
    questions.to_excel(folder / "question.xlsx", index=False)
    return folder
