"""What a split is made of: three sides, and the images that can stand on them."""

from dataclasses import replace

import numpy as np

from agiqa.data.datasets.table import ImagesTable

SIDES = ("train", "val", "test")
COLUMNS = ("name", "image_id", "seed", "side", "protocol")  # of a split file


def with_scores(table: ImagesTable) -> ImagesTable:
    """The images that have a score in at least one target; all, where the table has no target."""
    if not table.targets:
        return table
    scores = table.frame[[target.name for target in table.targets]].to_numpy(dtype=float)
    known = np.isfinite(scores).any(axis=1)
    if known.all():
        return table
    return replace(table, frame=table.frame[known].reset_index(drop=True))
