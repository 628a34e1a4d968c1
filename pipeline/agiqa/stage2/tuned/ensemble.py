"""What a fit with the preset `tuned` yields and how it scores: `light`, and a tail for each split.

The tail's score stands beside that of the frozen experts' mixture, with the share that the
validation side gave it. Weights are kept in float16; scores are computed in float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.params import Params
from agiqa.stage2.conformal import HeldOut, cv_plus, held_out
from agiqa.stage2.contract import (
    Expected,
    Header,
    Prediction,
    inside,
    matrix_shape,
    nested,
    score_by,
)
from agiqa.stage2.light import gate
from agiqa.stage2.light.ensemble import Ensemble
from agiqa.stage2.light.mixture import Mixture
from agiqa.stage2.tuned.inputs import TunedVisual
from agiqa.stage2.tuned.tail import Tail, TailConfig, facts

BATCH = 64  # images scored at a time


@dataclass(frozen=True)
class Blend:
    """A split's two scores in one: of the frozen experts' mixture, and of the tail."""

    mixture: Mixture  # of both, constant
    held_out: HeldOut  # errors of the whole on the validation side

    @property
    def share(self) -> float:
        """Give the weight of the tail in the mixture."""
        return float(self.mixture.shares[1, 0])

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        kept = nested("mixture", self.mixture.tensors())
        return kept | nested("held_out", self.held_out.tensors())

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make it of `tensors` again."""
        mixture = Mixture.from_tensors(inside("mixture", tensors), softmax=True)
        return cls(mixture, HeldOut.from_tensors(inside("held_out", tensors)))


def fit_blend(frozen: Tensor, tail: Tensor, mos: Tensor) -> Blend:
    """Weigh scores `(m,)` of a validation side so that they fit the MOS `(m,)`, none below zero.

    All in units of the training deviation.
    """
    datasets = torch.zeros(len(mos), dtype=torch.int64)
    scores = torch.stack([frozen, tail], dim=1)[..., None]
    side = gate.Side(torch.zeros(len(mos), 0), scores, mos[:, None], datasets)
    mixture = gate.constant_mixture(side, 1, softmax=True, experts=slice(None))
    errors = held_out(gate.scores(mixture, side), side.mos, datasets)
    return Blend(mixture, errors)


@dataclass(frozen=True, eq=False)
class TunedEnsemble:
    """S splits, whose mean score is a new image's; of one target and one data set."""

    light: Ensemble
    config: TailConfig
    tails: Sequence[Mapping[str, Tensor]]  # float16, of each split
    blends: tuple[Blend, ...]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What a run's provenance says of it: the tail's sizes, and its share on each split."""
        shares = [round(blend.share, 4) for blend in self.blends]
        return {"tail": asdict(self.config), "tail_shares": shares}

    def predict(self, visual: TunedVisual, semantic: np.ndarray) -> Prediction:
        """Scores on the MOS scale for N images.

        Args:
            visual: their visual vectors and tokens.
            semantic: vectors `(N, P, D)`.
        """
        frozen, tail = self.both(visual, semantic)  # (S, N)
        light = self.light.predict(visual.features, semantic)
        scores, gates = [], []
        for index, split in enumerate(self.light.splits):
            mixture = self.blends[index].mixture
            pair = torch.stack([frozen[index], tail[index]], dim=1)[..., None]  # (N, 2, 1)
            score, weights = mixture.mix(torch.zeros(len(pair), 0), pair)
            scores.append(torch.from_numpy(split.scales.restore(score.numpy(), 0)).float())
            gates.append(torch.cat([light.gate[index] * weights[:, :1], weights[:, 1:]], dim=1))
        return Prediction(torch.stack(scores), torch.stack(gates))

    def both(self, visual: TunedVisual, semantic: np.ndarray) -> tuple[Tensor, Tensor]:
        """Scores `(S, N)` of the frozen experts' mixtures and of the tails, in deviations."""
        light = self.light.predict(visual.features, semantic).score[..., 0]
        frozen = [
            (score - split.scales.mean[0, 0]) / split.scales.sd[0, 0]
            for split, score in zip(self.light.splits, light, strict=True)
        ]

        def inputs(rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
            states = tokens_on(visual.tokens[rows], self.config, device)
            return states, torch.from_numpy(semantic[rows]).to(device)

        every = np.arange(len(semantic))
        tails = [score_by(self.network, weights, inputs, every, BATCH)[0] for weights in self.tails]
        return torch.stack(frozen).float(), torch.stack(tails)

    def intervals(self, score: Tensor, target: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Ends `(N,)` of prediction intervals (`conformal`), by scores of `predict` `(S, N, 1)`."""
        return cv_plus(score[..., 0].numpy(), [self.errors(s) for s in range(len(self.blends))])

    def errors(self, index: int) -> np.ndarray:
        """Absolute errors `(m,)` on the validation side of the split at `index`."""
        sd = float(self.light.splits[index].scales.sd[0, 0])
        return self.blends[index].held_out.of(0, 0) * sd

    def only(self, index: int) -> Self:
        """The ensemble of the split at `index` alone."""
        one = slice(index, index + 1)
        light = self.light.only(index)
        return type(self)(light, self.config, self.tails[one], self.blends[one])

    def semantic_order(self, names: Sequence[str], width: int, where: str) -> list[int]:
        """Which of an extractor's semantic vectors each expert takes: they are in order."""
        return self.light.semantic_order(names, width, where)

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        named = nested("light", self.light.tensors())
        for index, (tail, blend) in enumerate(zip(self.tails, self.blends, strict=True)):
            named |= nested(f"tail.{index}", tail) | nested(f"blend.{index}", blend.tensors())
        return named

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], params: Params, provenance: Mapping[str, Any]
    ) -> Self:
        """Make the ensemble of a run again, the tails' weights still in the file."""
        frozen, splits = _of_light(provenance), range(len(provenance["seeds"]))
        light = Ensemble.from_tensors(inside("light", tensors), params, frozen)
        tails = [inside(f"tail.{index}", tensors) for index in splits]
        blends = tuple(Blend.from_tensors(inside(f"blend.{index}", tensors)) for index in splits)
        return cls(light, facts(provenance["tail"]), tails, blends)

    @staticmethod
    def expected(header: Header, params: Params, provenance: Mapping[str, Any]) -> Expected:
        """Name the tensors of a run; the network takes no room, on the device `meta`.

        Raises:
            ValueError: the provenance contradicts what the file holds.
        """
        with torch.device("meta"):
            state = Tail(facts(provenance["tail"])).state_dict()
        tail = {name: (("F16",), tuple(tensor.shape)) for name, tensor in state.items()}
        own = inside("light", header)
        named: Expected = nested("light", Ensemble.expected(own, params, _of_light(provenance)))
        for index in range(len(provenance["seeds"])):
            images, _ = matrix_shape(header, f"blend.{index}.held_out.errors")
            blend = nested("mixture", Mixture.expected(0, 2, 1, 1))
            blend |= nested("held_out", HeldOut.expected(images, 1))
            named |= nested(f"tail.{index}", tail) | nested(f"blend.{index}", blend)
        return named

    @cached_property
    def network(self) -> Tail:
        """The network that the splits' weights take turns in."""
        from accelerate import PartialState

        return Tail(self.config).to(PartialState().device).eval()


def tokens_on(tokens: np.ndarray, config: TailConfig, device: torch.device) -> Tensor:
    """Tokens `(n, L * C)` as a tail takes them: `(n, L, C)` float32."""
    shaped = tokens.reshape(len(tokens), config.tokens, config.width)
    return torch.from_numpy(shaped).to(device).float()


def _of_light(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance without the tail among the experts."""
    return {**provenance, "experts": list(provenance["experts"])[:-1]}
