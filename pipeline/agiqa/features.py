"""Features: the rows of an images table joined with its two stores; all that stage 2 sees.

Nothing here knows which extractor made a vector. Byte-identical images share a row.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError
from agiqa.feature_store import FeatureStore, read_pack, require_same

log = logging.getLogger(__name__)

VISUAL = "visual"  # the name of the visual expert; the others have their prompts' names


@dataclass(frozen=True)
class Features:
    """One row for each row of the images table."""

    visual: np.ndarray  # (N, F) float32: the layers side by side
    semantic: np.ndarray  # (N, P, D) float32
    prompts: tuple[str, ...]  # names of the P semantic vectors
    stores: Mapping[str, Any]  # what they were made by, for provenance: visual and semantic

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts in the gate's order."""
        return (VISUAL, *self.prompts)


def load_features(table: ImagesTable, semantic: Path, visual: Path) -> tuple[ImagesTable, Features]:
    """Read both stores in bulk and align them with the table.

    Returns:
        The table without the images that `extract --skip-bad` left out, and its features.

    Raises:
        AgiqaError: a store is absent, damaged or foreign, or lacks images of the table.
    """
    stores = {"semantic": read_pack(semantic), "visual": read_pack(visual)}
    left_out = frozenset().union(*(store.left_out for store in stores.values()))
    absent = table.frame["image_id"].isin(left_out)
    if absent.any():
        log.warning("%d images have no vectors and are left out, as extract was told", absent.sum())
        table = replace(table, frame=table.frame[~absent].reset_index(drop=True))
    ids = list(table.frame["image_id"])
    rows = {kind: store.rows(ids).astype(np.float32) for kind, store in stores.items()}
    features = Features(
        visual=rows["visual"].reshape(len(ids), -1),
        semantic=rows["semantic"],
        prompts=stores["semantic"].names,
        stores={kind: describe_store(store) for kind, store in stores.items()},
    )
    return table, features


def describe_store(store: FeatureStore) -> dict[str, Any]:
    """Extractor, vector names and fingerprints, as a run's provenance keeps them."""
    return {
        "extractor": store.extractor,
        "names": list(store.names),
        "fingerprints": [dict(fingerprint) for fingerprint in store.fingerprints],
    }


def require_same_stores(trained: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse features made in another way than those a run was trained on.

    Raises:
        AgiqaError: names the store, the field and both values.
    """
    for kind in ("semantic", "visual"):
        names, others = trained[kind]["names"], found[kind]["names"]
        if list(names) != list(others):
            raise AgiqaError(
                f"The run was trained on the {kind} vectors {', '.join(names)}, but the store "
                f"holds {', '.join(others)}: use the run's own params.yaml, or fit again."
            )
        pairs = zip(trained[kind]["fingerprints"], found[kind]["fingerprints"], strict=True)
        for name, (ours, theirs) in zip(names, pairs, strict=True):
            require_same(
                ours,
                theirs,
                where=f"{kind} vector '{name}'",
                advice="the run was trained on other features: use its params.yaml, or fit again",
            )
