"""Data sets: one module for each official layout, all giving the same images table."""

from collections.abc import Callable

from agiqa.datasets import agiqa_3k, csv_file, demo, folder
from agiqa.datasets.table import ImagesTable

# Name on the command line: the function that makes its table. Their arguments differ.
DATASETS: dict[str, Callable[..., ImagesTable]] = {
    "agiqa-3k": agiqa_3k.prepare,
    "csv": csv_file.prepare,
    "folder": folder.prepare,
    "demo": demo.prepare,
}
