"""AGIQA-3K (Li et al., 2023, arXiv 2306.04717): 2,982 images of 6 generators in 10 variants, MIT.

Official layout: `data.csv` (`name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,
std_align`) beside the folder `AGIQA-3K` of .jpg files; both in one folder is accepted too. Half of
the file names hold further dots (`sd1.5_lowcorr_012.jpg`). Nine sets of files, 19 in all, are
byte-identical, across prompts and even generators.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from agiqa.datasets.build import build_table, prompt_group
from agiqa.datasets.labels import numbers, read_text_csv, refuse_duplicates, require_columns
from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError, some

NAME = "agiqa-3k"
FOLDER = "AGIQA-3K"
LABELS = "data.csv"
TARGETS = {"quality": "mos_quality", "align": "mos_align"}  # ours: the official column
DEVIATIONS = {"quality": "quality_sd", "align": "align_sd"}


def prepare(
    source: Path,
    *,
    skip_bad: bool = False,
    workers: int | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> ImagesTable:
    """Read the unpacked official download; rows stand in the order of `data.csv`."""
    csv, root = _find(source)
    labels = read_text_csv(csv)
    require_columns(labels, ["name", "prompt", *TARGETS.values()], csv)
    refuse_duplicates(labels["name"], csv)
    if not any((root / name).is_file() for name in labels["name"]):
        raise AgiqaError(
            f"{root}: none of the {len(labels)} images that {csv.name} lists is here, such as "
            f"{some(list(labels['name']), 1)}: put the folder {FOLDER} beside {csv}"
        )
    rows = pd.DataFrame(
        {
            "path": labels["name"],
            "prompt": labels["prompt"],
            "group": prompt_group(labels["prompt"]),
            "generator": labels["name"].str.replace(r"_\d+\.[^.]*$", "", regex=True),
        }
    )
    for target, column in TARGETS.items():
        rows[target] = numbers(labels, column, "name", csv)
        spread = column.replace("mos_", "std_")
        rows[DEVIATIONS[target]] = numbers(labels, spread, "name", csv)
    return build_table(
        NAME,
        root,
        rows,
        list(TARGETS),
        licence="MIT",
        source="AGIQA-3K, https://github.com/lcysyzxdxc/AGIQA-3k-Database",
        scale=(0, 5),
        deviations=DEVIATIONS,
        skip_bad=skip_bad,
        workers=workers,
        on_progress=on_progress,
    )


def _find(source: Path) -> tuple[Path, Path]:
    """The labels file and the folder of images."""
    if not source.is_dir():
        raise AgiqaError(f"{source}: expected the folder of the unpacked AGIQA-3K, found none")
    for csv in (source / LABELS, source / FOLDER / LABELS):
        if csv.is_file():
            images = csv.parent / FOLDER
            return csv, images if images.is_dir() else csv.parent
    found = some(sorted(p.name for p in source.iterdir())) or "nothing"
    raise AgiqaError(
        f"{source}: expected {LABELS} beside the folder {FOLDER}, found {found}: "
        "give the folder that the official download unpacks to"
    )
