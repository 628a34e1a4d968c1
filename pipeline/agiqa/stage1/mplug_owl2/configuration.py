"""Sizes of mPLUG-Owl2 as its public `config.json` gives them: LLaMA's, and `visual_config` beside.

Source: Ye et al., "mPLUG-Owl2" (CVPR 2024, arXiv:2311.04257), and its public configuration file.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from transformers import LlamaConfig

Sizes = TypeVar("Sizes", bound="VisionSizes | AbstractorSizes")


@dataclass(frozen=True)
class VisionSizes:
    """The vision tower, by default ViT-L/14 at 448 pixels; `visual_config.visual_model`."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 448  # pixels a side
    patch_size: int = 14
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-6

    @property
    def tokens(self) -> int:
        """Of an image: its patches and a class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class AbstractorSizes:
    """Sizes of the visual abstractor; `visual_config.visual_abstractor`."""

    num_learnable_queries: int = 64
    hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    encoder_hidden_size: int = 1024  # of the vision tower
    layer_norm_eps: float = 1e-6  # of the norm inside the MLP; the other norms have torch's 1e-5


class MplugOwl2Config(LlamaConfig):
    """LLaMA's configuration with the vision tower's and the abstractor's sizes."""

    model_type = "mplug_owl2"

    visual_config: dict[str, Any] | None = None

    @property
    def vision(self) -> VisionSizes:
        """Sizes of the vision tower; what the file leaves out has the public model's value."""
        return _sizes(VisionSizes, self.visual_config, "visual_model")

    @property
    def abstractor(self) -> AbstractorSizes:
        """Sizes of the visual abstractor, likewise."""
        return _sizes(AbstractorSizes, self.visual_config, "visual_abstractor")

    @property
    def visual_tokens(self) -> int:
        """That an image becomes: the abstractor's queries and one end-of-image embedding."""
        return self.abstractor.num_learnable_queries + 1


def _sizes(cls: type[Sizes], tree: Mapping[str, Any] | None, part: str) -> Sizes:
    given = (tree or {}).get(part) or {}
    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        value = given.get(field.name, field.default)
        if type(value) is not type(field.default):
            raise ValueError(f"visual_config.{part}.{field.name} is {value!r}")
        chosen[field.name] = value
    return cls(**chosen)
