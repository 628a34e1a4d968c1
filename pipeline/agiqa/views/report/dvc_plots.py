"""The page's figures as small files for `dvc plots show` and `dvc plots diff`.

    calibration.csv             mean score and mean MOS of bins
    residuals_by_generator.csv  score − MOS
    residuals_by_mos.csv
    gate_by_generator.csv       a row for each expert and generator
    splits.csv                  the test side of every split
    worst.jpg, best.jpg         the largest misses and the closest hits, with their numbers

dvc.yaml says how each is drawn; numbers are rounded, so that a diff shows what has changed.
"""

import contextlib
import io
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from agiqa.core.whole_files import write_whole
from agiqa.data.datasets.table import ImagesTable, read_table
from agiqa.data.images import ImageError, decode
from agiqa.views.kit.number import number
from agiqa.views.report import summaries
from agiqa.views.report.results import MODEL, Results, average_images, read_results

FOLDER = "plots"
SHEET, TILE, LINE = (6, 3), 160, 22  # images across and down, pixels a side and of the words


def write_plots(run: Path, dataset: Path) -> Path:
    """Write RUN/plots of an evaluated run, and give the folder; absent pictures leave grey tiles.

    Raises:
        AgiqaError: no such run, not evaluated, or no place to write.
    """
    results, table, folder = read_results(run), read_table(dataset), run / FOLDER
    images = average_images(results)
    low, high = results.provenance["mos"]["low"], results.provenance["mos"]["high"]
    for name, frame in _tables(results, images, low, high).items():
        text = frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        write_whole(folder / f"{name}.csv", text.encode("utf-8"))
    error = images["error"].abs()
    for name, order in (("worst", error.nlargest), ("best", error.nsmallest)):
        selected = images.loc[order(SHEET[0] * SHEET[1]).index]
        write_whole(folder / f"{name}.jpg", contact_sheet(selected, table, results.truth))
    return folder


def _tables(
    results: Results, images: pd.DataFrame, low: float, high: float
) -> dict[str, pd.DataFrame]:
    by_range = summaries.residuals_by_range(images, low, high)
    by_range.insert(0, "mos", (by_range["low"] + by_range["high"]) / 2)
    gate = pd.DataFrame(columns=["expert", "generator", "mean"])
    if results.experts:
        gate = summaries.gate_by_generator(results.predictions, results.experts)
    gate.insert(0, "row", gate["expert"] + ", " + gate["generator"])
    splits = pd.DataFrame(results.metrics["per_split"][MODEL])
    return {
        "calibration": summaries.calibration(images),
        "residuals_by_generator": summaries.residuals_by_generator(images),
        "residuals_by_mos": by_range,
        "gate_by_generator": gate,
        "splits": splits.drop(columns="intervals", errors="ignore"),
    }


def contact_sheet(images: pd.DataFrame, table: ImagesTable, truth: str) -> bytes:
    """A JPEG of SHEET rows of `average_images`, in their order, with score and MOS (`truth`).

    Only files that the table lists are opened.
    """
    across, down = SHEET
    sheet = Image.new("RGB", (across * TILE, down * (TILE + LINE)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    listed_paths = set(table.frame["path"])
    for index, (path, mos, score) in enumerate(
        zip(images["path"], images["mos"], images["score"], strict=True)
    ):
        left, top = index % across * TILE, index // across * (TILE + LINE)
        picture = Image.new("RGB", (TILE - 4, TILE - 4), "#d0d0d0")
        if path in listed_paths and table.root is not None:
            with contextlib.suppress(ImageError):  # stays grey; the page says which and why
                picture = decode(table.root / path)
        picture.thumbnail((TILE - 4, TILE - 4), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + (TILE - picture.width) // 2, top + 2))
        truth_word = truth.split()[0]  # "true", of synthetic data
        words = f"{truth_word} {number(mos)} score {number(score)}".replace("−", "-")
        pen.text((left + 4, top + TILE), words, fill="black", font=font)
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=80)
    return file.getvalue()
