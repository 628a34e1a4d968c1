"""Quality scores for AI-generated images: LMM semantics cached once, light regressors on top."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agiqa.runs.score import load_scorer

__version__ = "0.1.0"
__all__ = ["load_scorer"]


def __getattr__(name: str) -> object:
    """`agiqa.load_scorer`, loaded when asked for: it brings torch."""
    if name == "load_scorer":
        from agiqa.runs.score import load_scorer

        return load_scorer
    raise AttributeError(f"module 'agiqa' has no attribute '{name}'")
