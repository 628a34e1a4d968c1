"""Semantic and visual vectors out of one pass of the vision tower that both look through.

Where the visual backbone is the semantic model's own tower, and sees the image at the same size,
the tower's hidden states are there once the image is encoded for the prompts: pooled here, they
are the visual vectors to the bit, and its pass is saved. A close-up beside it has its own pass.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from agiqa.stage1.extractors.contract import Extractor, Recipe, Sample
from agiqa.stage1.extractors.image_text import ImageTextExtractor
from agiqa.stage1.extractors.vision import VisionExtractor

PIXELS = "pixel_values"  # as transformers' processors call them
PREPROCESSING = "preprocessing"  # in fingerprints
SAME = ("dtype", "attention", "precision")  # settings that have to agree


class SharedTower:
    """The vectors of a semantic extractor, then those of a visual one; wanted ones in this order.

    `shared_tower` makes it of two that look through the same tower.
    """

    def __init__(self, semantic: ImageTextExtractor, visual: VisionExtractor) -> None:
        self.semantic, self.visual = semantic, visual
        self.name = f"{semantic.name} and {visual.name}"
        self.batch_size, self.precision = semantic.batch_size, semantic.precision
        self.vectors = (*semantic.vectors, *visual.vectors)

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """Turn an RGB image into the semantic model's arrays, and `_NAME` of each further view."""
        sample = self.semantic.preprocess(image, image_prompt)
        further = self.visual.pixels(image, self.visual.views[1:])
        return replace(
            sample, arrays={**sample.arrays, **{f"_{name}": view for name, view in further.items()}}
        )

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples of one key into float32 `(B, D)` for each wanted vector."""
        count, depth = len(self.semantic.vectors), len(self.visual.settings.layers)
        semantic = [index for index in wanted if index < count]
        visual = [index - count for index in wanted if index >= count]
        whole = [index for index in visual if index < depth]
        further = [index for index in visual if index >= depth]
        encoded: list[Any] = []
        self.semantic.when_encoded = encoded.append if whole else None
        rows = self.semantic.extract(samples, semantic) if semantic else []
        rows += self._pooled(encoded, samples, whole) if whole else []
        if further:  # views that the semantic model does not see
            names = [view.name for view in self.visual.views[1:]]
            views = [{name: sample.arrays[f"_{name}"] for name in names} for sample in samples]
            rows += self.visual.extract([Sample(view) for view in views], further)
        return rows

    def recipe(self) -> Recipe:
        """Give the recipes of both extractors."""
        return Recipe(SharedTower, (self.semantic.recipe(), self.visual.recipe()))

    def _pooled(
        self, encoded: Sequence[Any], samples: Sequence[Sample], wanted: Sequence[int]
    ) -> list[np.ndarray]:
        """Pool what the tower has given of the samples, or else run it, to `(B, D)` a vector."""
        import torch

        hidden = [states for states in encoded if states]
        if sum(len(states[0]) for states in hidden) != len(samples):
            view = self.visual.views[0].name
            return self.visual.extract(
                [Sample({view: sample.arrays[PIXELS]}) for sample in samples], wanted
            )
        patches = (self.visual.views[0].side // self.visual.patch_size) ** 2
        layers = [self.visual.settings.layers[index] for index in wanted]
        with torch.inference_mode():
            pooled = [
                torch.cat([self.visual.pool(states[layer], patches) for states in hidden])
                for layer in layers
            ]
        return [rows.cpu().numpy() for rows in pooled]


def shared_tower(semantic: Extractor, visual: Extractor) -> SharedTower | None:
    """Join them where both see the same whole image by the same tower, in the same arithmetic.

    None: they do not.
    """
    if not isinstance(semantic, ImageTextExtractor) or not isinstance(visual, VisionExtractor):
        return None
    settings, other = semantic.settings, visual.settings
    same = (
        semantic.folder.path == visual.folder.path
        and all(getattr(settings, name) == getattr(other, name) for name in SAME)
        and semantic.batch_size == visual.batch_size
        and settings.dtype in ("float32", "int8")  # else vectors that overflow are computed again
        and settings.quantization == "none"
        and semantic.vectors[0].fingerprint[PREPROCESSING]
        == visual.vectors[0].fingerprint[PREPROCESSING]
    )
    return SharedTower(semantic, visual) if same else None
