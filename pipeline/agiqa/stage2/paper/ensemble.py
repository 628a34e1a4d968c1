"""What a fit with the `paper` presets yields and how it scores: one network for each split.

Beside `light.ensemble`; how the splits' weights take turns says `contract`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params, from_tree
from agiqa.stage2.contract import Expected, Header, Prediction, Rows, inside, nested, score_by
from agiqa.stage2.paper.inputs import network_inputs, semantic_order
from agiqa.stage2.paper.network import NetworkOutput, PaperConfig, PaperRegressor

NAMES = {  # of types in a file's header
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
    torch.uint8: "U8",
}
MOST_WIDTH = 1 << 20  # of semantic vectors
BATCH = 16  # images at a time


@dataclass(frozen=True, eq=False)
class PaperEnsemble:
    """S splits, one network each."""

    config: PaperConfig
    weights: Sequence[Mapping[str, Tensor]]  # of each split's network

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What a run's provenance says of it: the network's sizes."""
        return {"network": asdict(self.config)}

    def predict(self, visual: Rows, semantic: np.ndarray) -> Prediction:
        """Scores on the MOS scale for N images; of one target.

        Args:
            visual: pixels `(n, S, S, 3)` uint8 of the images, an array or `Pixels`.
            semantic: vectors `(N, 2, D)` in the order of the experts.
        """
        rows = np.arange(len(visual))
        splits = range(len(self.weights))
        outputs = [self.predict_split(split, visual, semantic, rows) for split in splits]
        score, gate, maps = (torch.stack(part) for part in zip(*outputs, strict=True))
        return Prediction(score[..., None], gate[..., None], maps)

    def predict_split(
        self, index: int, pixels: Rows, semantic: np.ndarray, rows: np.ndarray
    ) -> NetworkOutput:
        """What the split's network says of the images `rows` `(n,)`."""
        inputs = partial(network_inputs, pixels, semantic)
        weights = self.weights[index]
        return NetworkOutput(*score_by(self.network, weights, inputs, rows, BATCH, "Score"))

    def intervals(self, score: Tensor, target: int = 0) -> None:
        """None: the networks' errors on their validation sides are not kept."""

    def semantic_order(self, names: Sequence[str], width: int, where: str) -> list[int]:
        """Which of an extractor's semantic vectors the two experts take, if they are as wide."""
        self.require_width(width, where)
        return semantic_order(names, range(len(names)), where)

    def require_width(self, width: int, where: str) -> None:
        """Refuse semantic vectors that the networks' weights were not made for."""
        if width != self.config.semantic_width:
            raise AgiqaError(
                f"{where}: expected semantic vectors {self.config.semantic_width} wide, as the "
                f"network was trained on, found {width}: name the LMM it was trained with "
                "(semantic.model, semantic.name)."
            )

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        named: dict[str, Tensor] = {}
        for index, weights in enumerate(self.weights):
            named |= nested(f"split.{index}", weights)
        return named

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], params: Params, provenance: Mapping[str, Any]
    ) -> Self:
        """Make the ensemble of a run again, its weights still in the file."""
        weights = [inside(f"split.{index}", tensors) for index in range(len(provenance["seeds"]))]
        return cls(paper_config(provenance), weights)

    @staticmethod
    def expected(header: Header, params: Params, provenance: Mapping[str, Any]) -> Expected:
        """Name the tensors of a run; the network takes no room, on the device `meta`."""
        with torch.device("meta"):
            state = PaperRegressor(paper_config(provenance)).state_dict()
        shapes = {name: ((NAMES[t.dtype],), tuple(t.shape)) for name, t in state.items()}
        named: Expected = {}
        for index in range(len(provenance["seeds"])):
            named |= nested(f"split.{index}", shapes)
        return named

    @cached_property
    def network(self) -> PaperRegressor:
        """The network that the splits' weights take turns in."""
        from accelerate import PartialState

        return PaperRegressor(self.config).to(PartialState().device).eval()


def paper_config(provenance: Mapping[str, Any]) -> PaperConfig:
    """The sizes of the paper's network, as a run's provenance tells them.

    Raises:
        ValueError: one is unknown, or not what it can be.
    """
    sizes = dict(provenance.get("network") or {})
    width = sizes.pop("semantic_width", None)
    if type(width) is not int or not 0 < width < MOST_WIDTH:
        raise ValueError("network.semantic_width is no width")
    try:
        network = from_tree({"paper": {"network": sizes}}, "network").paper.network
        return PaperConfig(**vars(network), semantic_width=width)
    except AgiqaError as error:
        raise ValueError(str(error)) from error
