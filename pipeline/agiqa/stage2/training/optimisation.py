"""How a recipe moves the weights: optimiser, learning rate and the moving average of the weights.

Their whole state is named tensors, so that a fit that was stopped goes on to the bit
(`resume`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agiqa.stage2.presets import Recipe

HALF_CYCLE = 50  # steps from the full rate to 0 in the authors' schedule (T_max)
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what Adam remembers of each parameter


def make_optimiser(
    model: nn.Module, recipe: Recipe, groups: Sequence[dict[str, Any]] = ()
) -> torch.optim.Optimizer:
    """Adam with L2 on everything, as the authors, or AdamW that spares biases and norms.

    AdamW may be given groups of parameters, of which each has its decay and share of the rate.
    """
    if recipe.optimiser == "adam":
        parameters = list(model.parameters())
        return torch.optim.Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(groups or decayed(model.parameters(), recipe), lr=recipe.lr)


def decayed(
    parameters: Iterable[nn.Parameter], recipe: Recipe, share: float = 1.0
) -> list[dict[str, Any]]:
    """Groups of parameters whose matrices decay; biases and norms do not.

    Args:
        parameters: of a network, or of a part of it.
        recipe: has the decay.
        share: of the learning rate.
    """
    every = list(parameters)
    return [
        {"params": [p for p in every if (p.ndim > 1) == matrices], "share": share,
         "weight_decay": recipe.weight_decay if matrices else 0.0}
        for matrices in (True, False)
    ]  # fmt: skip


def rate(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of a step, counted from 0, of `steps`."""
    rise = min(1.0, (step + 1) / max(1.0, recipe.warmup * steps))
    turn = step / HALF_CYCLE if recipe.schedule == "cycle" else step / steps
    return recipe.lr * rise * 0.5 * (1 + math.cos(math.pi * turn))


def optimiser_state(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """What the optimiser remembers, as `<parameter>.<moment>`."""
    return {
        f"{name}.{moment}": value
        for name, parameter in model.named_parameters()
        for moment, value in optimiser.state[parameter].items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Let the optimiser remember what `optimiser_state` gave."""
    for name, parameter in model.named_parameters():
        optimiser.state[parameter] = {
            moment: tensors[f"{name}.{moment}"].to(
                parameter.device if moment != "step" else "cpu", copy=True
            )
            for moment in MOMENTS
        }


class MovingAverage:
    """Exponential moving average of a model's parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    def update(self, model: nn.Module) -> None:
        """Take in the weights of one more step; the first ones count more, or it lags behind."""
        self.updates += 1
        decay = min(self.decay, self.updates / (10 + self.updates))
        averages = list(self.weights.values())
        weights = [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def restore(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Go on from a saved average."""
        self.updates = updates
        for name, tensor in weights.items():
            self.weights[name].copy_(tensor)
