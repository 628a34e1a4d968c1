"""The models that `evaluation` measures, in plain words: for every table, page and command."""

from collections.abc import Iterable

ZERO_SHOT = "zero_shot"
# By name, in the order of a table: what it is, and what it sees.
MODELS = {
    ZERO_SHOT: ("Published scorer", "not trained on these ratings"),
    "ridge": ("Ridge regression", "visual and semantic"),
    "ridge_visual": ("Ridge regression", "visual only"),
    "ridge_semantic": ("Ridge regression", "semantic only"),
    "visual": ("Kernel ridge", "visual only"),
    "semantic": ("Kernel ridges, one constant mixture", "semantic only"),
    "constant": ("Kernel ridges, one constant mixture", "visual and semantic"),
    "light": ("Mixture of frozen experts", "visual and semantic"),
    "tuned": ("Tuned blocks", "visual and semantic"),
    "moe": ("Mixture of experts", "visual and semantic"),
    "moe_drop_last": ("The same", "as the authors count: the last batch dropped"),
}


def in_order(models: Iterable[str]) -> list[str]:
    """Known models in their order, then any others."""
    names = list(models)
    return [m for m in MODELS if m in names] + [m for m in names if m not in MODELS]


def label(model: str) -> str:
    """One line for a model, such as `mixture of experts, visual and semantic`."""
    what, sees = MODELS.get(model, (model, ""))
    return f"{what.lower()}, {sees}" if sees else model
