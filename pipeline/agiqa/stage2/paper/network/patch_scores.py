"""Patch-weighted scores: each patch has an opinion and says how much it counts."""

from torch import nn


def patch_score(width: int, dropout: float) -> nn.Sequential:
    """Features `(B, N, C)` to scores `(B, N, 1)`, none below 0."""
    return _perceptron(width, dropout, nn.ReLU())


def patch_weight(width: int, dropout: float) -> nn.Sequential:
    """Features `(B, N, C)` to weights `(B, N, 1)` between 0 and 1."""
    return _perceptron(width, dropout, nn.Sigmoid())


def _perceptron(width: int, dropout: float, last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1), last
    )
