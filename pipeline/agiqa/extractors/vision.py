"""Visual features: a frozen vision transformer's layers, pooled. Stage 1 of the `light` preset.

For each chosen block: the class token, and mean and standard deviation over the patches. Early
blocks carry distortions, late ones content.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from agiqa.errors import AgiqaError
from agiqa.extractors.contract import Vector
from agiqa.extractors.loading import (
    find_model,
    load_image_processor,
    load_model,
    preprocess,
    versions,
)
from agiqa.params import Visual

POOLS = ("cls", "mean", "std")
TOWER = "vision_tower."  # in the names of an image-text model's weights


class VisionExtractor:
    """One vector for each chosen block, its pools side by side. Weights load on first use."""

    def __init__(self, settings: Visual) -> None:
        from transformers import AutoConfig

        self.settings = settings
        self.folder = find_model(settings.model)
        config = AutoConfig.from_pretrained(self.folder.path)
        self._config = getattr(config, "vision_config", config)
        self.name = settings.name
        self.batch_size = settings.batch_size
        self.precision = settings.precision
        self._check()
        self._processor = load_image_processor(self.folder, settings.image_size)
        self._tower: Any = None
        self.vectors = self._describe()

    @property
    def width(self) -> int:
        """D: hidden size times the number of pools."""
        return int(self._config.hidden_size) * len(self.settings.pool)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """RGB image to float32 pixels `(3, H, W)`."""
        return preprocess(self._processor, image)

    def extract(self, pixels: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
        """Pixels `(B, 3, H, W)` to float32 `(B, len(wanted), D)`."""
        import torch

        if self._tower is None:
            self._tower = self._load()
        options: dict[str, Any] = {"output_hidden_states": True}
        if self.settings.image_size != self._config.image_size:
            options["interpolate_pos_encoding"] = True
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self._tower.device, self._tower.dtype)
            hidden = self._tower(pixel_values=batch, **options).hidden_states
            chosen = [hidden[self.settings.layers[index]] for index in wanted]
            return torch.stack([self._pool(states) for states in chosen], dim=1).cpu().numpy()

    def _pool(self, states: Any) -> Any:
        """Hidden states `(B, 1 + patches, C)` to `(B, pools * C)` in float32."""
        import torch

        states = states.float()
        patches = states[:, 1:]
        pooled = {"cls": states[:, 0], "mean": patches.mean(dim=1), "std": patches.std(dim=1)}
        return torch.cat([pooled[pool] for pool in self.settings.pool], dim=1)

    def _load(self) -> Any:
        import transformers

        auto = transformers.AutoModelForImageTextToText
        if getattr(
            transformers.AutoConfig.from_pretrained(self.folder.path), "vision_config", None
        ):
            whole = load_model(auto, self.folder, self.settings.dtype, self.settings.attention)
            return whole.model.vision_tower
        return load_model(
            transformers.AutoModel, self.folder, self.settings.dtype, self.settings.attention
        )

    def _check(self) -> None:
        depth = int(getattr(self._config, "num_hidden_layers", 0))
        wrong = [layer for layer in self.settings.layers if not 1 <= layer <= depth]
        if wrong or not self.settings.layers:
            raise AgiqaError(
                f"visual.layers expects blocks from 1 to {depth} of '{self.folder.name}', "
                f"found {list(self.settings.layers)}."
            )
        unknown = [pool for pool in self.settings.pool if pool not in POOLS]
        if unknown or not self.settings.pool:
            raise AgiqaError(
                f"visual.pool expects some of {', '.join(POOLS)}, found {list(self.settings.pool)}."
            )

    def _describe(self) -> tuple[Vector, ...]:
        shared = {
            "extractor": "vision",
            "model": self.folder.part_identity(TOWER) | {"config": self._config.to_diff_dict()},
            "pool": list(self.settings.pool),
            "preprocessing": self._processor.to_dict() | {"backend": "pil"},
            "dtype": self.settings.dtype,
            "attention": self.settings.attention,
            "stored_as": self.precision,
            "libraries": versions(),
        }
        return tuple(
            Vector(f"layer{layer}", shared | {"layer": layer}) for layer in self.settings.layers
        )
