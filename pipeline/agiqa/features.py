"""Features: the rows of an images table joined with its two stores; all that stage 2 sees.

Nothing here knows which extractor made a vector. Byte-identical images share a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError
from agiqa.feature_store import FeatureStore, read_pack, require_same

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


def load_features(table: ImagesTable, semantic: Path, visual: Path) -> Features:
    """Read both stores in bulk and align them with the table.

    Raises:
        AgiqaError: a store is absent, damaged or foreign, or lacks images of the table.
    """
    stores = {"semantic": read_pack(semantic), "visual": read_pack(visual)}
    ids = list(table.frame["image_id"])
    rows = {kind: store.rows(ids).astype(np.float32) for kind, store in stores.items()}
    return Features(
        visual=rows["visual"].reshape(len(ids), -1),
        semantic=rows["semantic"],
        prompts=stores["semantic"].names,
        stores={kind: describe_store(store) for kind, store in stores.items()},
    )


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
