"""What the preset `tuned` trains on and is tested on: the vectors of `light`, and tokens.

Tokens stay in their pack: a batch's rows are read, and checked, as they are asked for, so that
memory does not grow with the data set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Visual
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage2.contract import Rows
from agiqa.stage2.features import Features, leave_out, load_features
from agiqa.store import TAIL as WEIGHTS
from agiqa.store import TOKENS, open_pack, require_same
from agiqa.store.packs.pack_layout import PackRows
from agiqa.store.row_ids import row_ids

TAIL = "tuned"  # the tail as an expert of the mixture
SETTINGS = {"tokens": "layer", "token_size": "token_size", "token_pool": "token_pool"}


@dataclass(frozen=True, eq=False)
class PackedTokens:
    """N images of a pack of tokens."""

    pack: PackRows
    rows: np.ndarray  # (N,): where the images lie in it

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, images: np.ndarray) -> np.ndarray:
        """Read the images' tokens `(n, L * C)`; DamagedRowsError where one is not whole."""
        return np.concatenate([self.pack[row : row + 1][:, 0] for row in self.rows[images]])

    def of(self, images: np.ndarray) -> "PackedTokens":
        """The tokens of some of the images, still in the pack."""
        return PackedTokens(self.pack, self.rows[images])


class TunedVisual(NamedTuple):
    """What is seen of N images."""

    features: np.ndarray  # (N, F) float32, as light takes them
    tokens: Rows  # (n, L * C) float16 or float32


@dataclass(frozen=True, eq=False)
class TunedInputs(Features):
    """What `light` sees, and the tokens; one row for each row of the images table."""

    image_ids: tuple[str, ...]  # of the N images
    tokens: PackedTokens
    made_by: Mapping[str, Any]  # the tokens' fingerprint
    tail_file: Path  # the backbone's blocks behind them, from which a fit starts

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts in the gate's order: the frozen ones, then the tail."""
        return (*super().experts, TAIL)

    def settings(self, visual: Visual) -> Visual:
        """Section visual, with what the tokens were made by; the run scores with it.

        Raises:
            AgiqaError: the settings ask for other tokens.
        """
        stored = {name: self.made_by[field] for name, field in SETTINGS.items()}
        if visual.tokens:
            require_same(
                {name: getattr(visual, name) for name in stored},
                stored,
                where=str(self.tokens.pack.path),
                advice="run `agiqa extract --only tokens` with these settings, or give `fit` those "
                "of the store",
            )
        return replace(visual, **stored)


def load_tuned_inputs(
    table: ImagesTable, semantic: Path, visual: Path, tokens: Path, patterns: Sequence[str]
) -> tuple[ImagesTable, TunedInputs]:
    """Read the stores of vectors in bulk, open that of tokens, align them with the table.

    Args:
        table: the images.
        semantic: the store of semantic vectors.
        visual: the store of visual vectors.
        tokens: the store of tokens.
        patterns: names of the semantic vectors to take, as `load_features` has them.

    Raises:
        AgiqaError: a store is absent, damaged or foreign, or lacks images of the table; the tokens
            are of another backbone than the visual vectors.
    """
    pack = _open_tokens(tokens, table.name)
    (made_by,) = pack.metadata["fingerprints"]
    left_out = list(pack.metadata.get("left_out", ()))
    table = leave_out(table, np.isin(row_ids(table, pack.by_prompt), left_out))
    table, features = load_features(table, semantic, visual, patterns)
    backbone = features.stores["visual"]["fingerprints"][0].get("model")
    if backbone is not None and weights_of(backbone) != weights_of(made_by["model"]):
        raise AgiqaError(
            f"{tokens}: tokens of another backbone than the vectors in {visual}: run `agiqa "
            "extract` again with the same visual.model for both."
        )
    rows_of = {name: row for row, name in enumerate(pack.image_ids)}
    keys = row_ids(table, pack.by_prompt)
    if missing := [name for name in keys if name not in rows_of]:
        raise AgiqaError(
            f"{tokens}: expected rows for {len(keys)} images, {len(missing)} of them are missing "
            f"(first: {missing[0]}); run `agiqa extract`, which computes only those."
        )
    names = {name: pack.metadata[name] for name in ("extractor", "names", "fingerprints")}
    inputs = TunedInputs(
        **vars(features) | {"stores": {**features.stores, TOKENS: names}},
        image_ids=tuple(table.frame["image_id"]),
        tokens=PackedTokens(pack, np.array([rows_of[name] for name in keys], dtype=np.int64)),
        made_by=made_by,
        tail_file=visual.with_name(visual.stem + WEIGHTS),
    )
    return table, inputs


def _open_tokens(path: Path, dataset: str) -> PackRows:
    """Open the store of tokens; AgiqaError where there is none, or one of other vectors."""
    if not path.exists():
        raise AgiqaError(
            f"No store of tokens {path}: run `agiqa extract {dataset} --only tokens --set "
            "visual.tokens=N`, N the block behind which the preset tuned trains."
        )
    pack = open_pack(path)
    made_by, *others = pack.metadata["fingerprints"]
    if others or not {"tokens", "model", *SETTINGS.values()} <= made_by.keys():
        raise AgiqaError(f"{path}: expected tokens of one block, found other vectors.")
    return pack


def weights_of(model: Any) -> Any:
    """What tells the weights of one model from another's."""
    return model.get("sha256", model) if isinstance(model, Mapping) else model
