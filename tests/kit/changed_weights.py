"""Weights of a tiny model's folder, changed by their names."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file


def change_weights(folder: Path, factor: Callable[[str], float | None]) -> None:
    """Multiply each weight by what its name gives; None takes it out."""
    path = folder / "model.safetensors"
    factors = {name: (weight, factor(name)) for name, weight in load_file(path).items()}
    kept = {name: weight * by for name, (weight, by) in factors.items() if by is not None}
    save_file(kept, path, metadata={"format": "pt"})
