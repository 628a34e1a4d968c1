"""Best hits and worst misses as small pictures inside the page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from agiqa.datasets.table import ImagesTable
from agiqa.images import ImageError, decode, printable
from agiqa.report.tables import number

PICTURES = 6  # in a gallery
SIDE = 320  # pixels of the longer side: sharp on a dense screen, about 15 kB as JPEG
QUALITY = 78


@dataclass(frozen=True)
class Picture:
    """One image with what is said of it."""

    path: str
    prompt: str
    generator: str
    mos: str
    score: str
    mos_at: float  # place on the scale of the MOS, percent
    score_at: float
    source: str = ""  # data: URI; empty where the file could not be read
    problem: str = ""  # why not


@dataclass(frozen=True)
class Gallery:
    """A row of pictures under a heading."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


def galleries(images: pd.DataFrame, table: ImagesTable, low: float, high: float) -> list[Gallery]:
    """Hits from the whole range, and the largest misses in both directions.

    Args:
        images: of `average_images`.
        table: the data set; only files that it lists are opened.
        low: the scale's lower end.
        high: its upper end.
    """
    too_high = images[images["error"] > 0].nlargest(PICTURES, "error")
    too_low = images[images["error"] < 0].nsmallest(PICTURES, "error")
    rest = images.drop(index=[*too_high.index, *too_low.index]).sort_values(["mos", "path"])
    error = rest["error"].abs().to_numpy()
    hits = [
        int(part[error[part].argmin()])  # row number in `rest`
        for part in np.array_split(np.arange(len(rest)), PICTURES)
        if len(part)
    ]
    chosen = (
        ("Best hits", "the closest in each sixth of the images, from the lowest to the highest",
         rest.iloc[hits]),
        ("Scored too high", "the largest misses upwards", too_high),
        ("Scored too low", "the largest misses downwards", too_low),
    )  # fmt: skip
    prompts = dict(zip(table.frame["path"], table.frame["prompt"], strict=True))
    return [
        Gallery(title, note, _pictures(rows, table, prompts, low, high))
        for title, note, rows in chosen
        if len(rows)
    ]


def problems(shown: Sequence[Gallery]) -> list[str]:
    """The pictures that could not be shown, and why."""
    return [f"{p.path} {p.problem}" for each in shown for p in each.pictures if p.problem]


def _pictures(
    rows: pd.DataFrame, table: ImagesTable, prompts: dict[str, str], low: float, high: float
) -> tuple[Picture, ...]:
    made = []
    for path, generator, mos, score in zip(
        rows["path"], rows["generator"], rows["mos"], rows["score"], strict=True
    ):
        source, problem = "", ""
        if path not in prompts:
            problem = "is not in the data set any more"
        elif table.root is None:
            problem = "is not on this machine"
        else:
            try:
                source = _embedded(decode(table.root / path))
            except ImageError as error:
                problem = error.reason
        made.append(
            Picture(
                printable(path),
                prompts.get(path, ""),
                generator,
                number(mos, 2),
                number(score, 2),
                _place(mos, low, high),
                _place(score, low, high),
                source,
                problem,
            )
        )
    return tuple(made)


def _place(value: float, low: float, high: float) -> float:
    return round(float(np.clip((value - low) / ((high - low) or 1), 0, 1)) * 100, 1)


def _embedded(image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
