"""What a run is made from, as its provenance.json says: data, stores, splits, versions."""

import hashlib
import importlib.metadata
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from agiqa.core.params import Params
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.splits.preparing import leaks
from agiqa.stage2.fit_data import RatedData

LIBRARIES = ("torch", "transformers", "scikit-learn", "scipy", "numpy", "zarr", "agiqa")


def describe_run(
    data: Sequence[RatedData], params: Params, experts: Sequence[str], stores: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe a fit: the first data set at the top, further ones under `others`.

    With versions of libraries, and the working folder's git revision where there is one.
    """
    first, *others = map(describe_data, data)
    git = ["git", "rev-parse", "HEAD"]
    try:
        revision = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = None
    return {
        "preset": params.fit.preset,
        **first,
        "trained_on": [one.name for one in data],
        "others": others,
        "experts": list(experts),
        "stores": dict(stores),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "git_revision": revision,
    }


def describe_data(data: RatedData) -> dict[str, Any]:
    """Describe a data set: its scores, splits with their digest, and what these leak."""
    table, splits, target = data.table, data.splits, data.columns[0]
    scores = table.frame[target]
    return {
        "dataset": table.name,
        "synthetic": table.synthetic,
        "licence": table.licence,
        "source": table.source,
        "images": len(table.frame),
        "target": target,
        "targets": list(data.columns),
        "protocol": data.protocol,
        "seeds": [int(seed) for seed in splits["seed"].unique()],
        "mos": {"low": float(scores.min()), "high": float(scores.max())},
        "splits_file": f"{data.protocol}.csv",
        "splits_sha256": data.digest,
        "scores_sha256": scores_digest(table, data.columns),
        "leaks": [vars(leak) for leak in leaks(splits, table)],
    }


def scores_digest(table: ImagesTable, columns: Sequence[str]) -> str:
    """A sha256 of the scores that each image has."""
    rows = table.frame[["image_id", "path", *columns]].sort_values("path")
    return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def known_images(data: Sequence[RatedData]) -> frozenset[str]:
    """Ids of the images on a training or validation side, of some split of some data set."""
    frames = (one.splits for one in data)
    return frozenset(
        name for frame in frames for name in frame.loc[frame["side"] != "test", "image_id"]
    )
