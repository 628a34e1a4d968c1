"""Visual features: a frozen vision transformer's layers, pooled. Stage 1 of the `light` preset.

For each chosen block: the class token, and mean and standard deviation over the patches. Early
blocks carry distortions, late ones content. The image is seen whole, and its centre once more from
close up, where shrinking has not hidden texture yet.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.float32 import full_float32
from agiqa.core.params import Visual
from agiqa.stage1.extractors.contract import Recipe, Sample, Vector, at_any_folder, batch
from agiqa.stage1.extractors.environment import libraries
from agiqa.stage1.extractors.failures import naming
from agiqa.stage1.extractors.loading import (
    find_model,
    load_config,
    load_image_processor,
    load_model,
    preprocess,
)

SIZES = ("image_size", "patch_size", "hidden_size")  # of a tower's configuration, a number each
POOLS = ("cls", "mean", "std")
TOWER = "vision_tower."  # in the names of an image-text model's weights
PARTS = ("vision_tower", "vision_model")  # of an image-text model, of CLIP and SigLIP


class View(NamedTuple):
    """One way to look at an image."""

    name: str  # its vectors' names begin with it
    size: int  # pixels a side that the image is resized to
    side: int  # pixels a side of the central square that is seen

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is seen, in shares of the image."""
        margin = (self.size - self.side) // 2 / self.size
        return (margin, margin, margin + self.side / self.size, margin + self.side / self.size)


class VisionExtractor:
    """One vector for each view and chosen block, its pools side by side. Weights load on first use.

    Views: the whole image at `image_size`; and, unless `closeup` is 0, the image at `closeup`
    pixels a side, of which the tower sees the central square of its own size.
    """

    def __init__(self, settings: Visual) -> None:
        self.settings = settings
        self.folder = find_model(settings.model)
        config = load_config(self.folder)
        self.config = getattr(config, "vision_config", config)  # the tower's
        sizes = [getattr(self.config, name, None) for name in SIZES]
        if not all(isinstance(size, int) for size in sizes):
            raise AgiqaError(
                f"Model '{self.folder.name}' is a {config.model_type}, not a vision transformer: "
                "use another one as visual.model, such as a CLIP, SigLIP, ViT or DINOv2."
            )
        self.name, self.precision = settings.name, settings.precision
        self.batch_size = settings.batch_size
        self.own_size = int(self.config.image_size)  # pixels a side that the tower was trained on
        self.patch_size = int(self.config.patch_size)  # pixels a side of a patch
        self.depth = int(getattr(self.config, "num_hidden_layers", 0))  # blocks of the tower
        self.width = int(self.config.hidden_size) * len(settings.pool)  # D
        self._check()
        self.views = [View("layer", settings.image_size, settings.image_size)]
        if settings.closeup:
            self.views.append(View("closeup", settings.closeup, self.own_size))
        self._processors = {
            view.name: load_image_processor(self.folder, view.size) for view in self.views
        }
        self.tower: Any = None
        self.vectors = self._describe()

    def recipe(self) -> Recipe:
        """Give the class and its arguments."""
        return Recipe(type(self), (at_any_folder(self.settings),))

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """Turn an RGB image into float32 pixels `(1, 3, H, H)` of each view."""
        return Sample(self.pixels(image, self.views))

    def pixels(self, image: Image.Image, views: Sequence[View]) -> dict[str, np.ndarray]:
        """Turn an RGB image into float32 pixels `(1, 3, H, H)` of some views, by their names."""
        pixels = {}
        for view in views:
            margin = (view.size - view.side) // 2
            inside = slice(margin, margin + view.side)
            processor = self._processors[view.name]
            pixels[view.name] = preprocess(processor, image)[None, :, inside, inside]
        return pixels

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples into float32 `(B, D)` for each wanted vector."""
        import torch

        self.load()
        depth = len(self.settings.layers)
        vectors: dict[int, Any] = {}
        pixels = batch(samples)
        with torch.inference_mode(), naming(self.folder.name), full_float32():
            for position, view in enumerate(self.views):
                own = [index for index in wanted if index // depth == position]
                if own:
                    layers = [self.settings.layers[index % depth] for index in own]
                    states = self.states(pixels[view.name], layers)
                    count = self._count(pixels[view.name])
                    vectors |= {i: self.pool(of, count) for i, of in zip(own, states, strict=True)}
            return [vectors[index].cpu().numpy() for index in wanted]

    def patches(self, samples: Sequence[Sample]) -> list[list[np.ndarray]]:
        """Give by view and block the patches' hidden states `(B, h * w, C)` in float32.

        What `extract` pools, before it is pooled; row by row from the upper left of the view's box.
        """
        import torch

        self.load()
        pixels = batch(samples)
        with torch.inference_mode(), naming(self.folder.name), full_float32():
            return [
                [
                    states[:, -self._count(pixels[view.name]) :].float().cpu().numpy()
                    for states in self.states(pixels[view.name], self.settings.layers)
                ]
                for view in self.views
            ]

    def _count(self, pixels: np.ndarray) -> int:
        """Count the patches that the pixels `(B, 3, H, H)` become."""
        return int((pixels.shape[-1] // self.patch_size) ** 2)

    def states(self, pixels: np.ndarray, layers: Sequence[int]) -> list[Any]:
        """Run one view `(B, 3, H, H)` to states `(B, others + patches, C)` for each layer."""
        import torch

        images = torch.from_numpy(pixels).to(self.tower.device, self.tower.dtype)
        options = {"output_hidden_states": True, **self.interpolation(pixels)}
        hidden = self.tower(pixel_values=images, **options).hidden_states
        return [hidden[layer] for layer in layers]

    def interpolation(self, pixels: np.ndarray) -> dict[str, bool]:
        """Say to the tower that pixels `(B, 3, H, H)` are of another size than its own."""
        own = pixels.shape[-1] == self.own_size
        return {} if own else {"interpolate_pos_encoding": True}

    def pool(self, states: Any, count: int) -> Any:
        """Pool hidden states `(B, others + patches, C)` to `(B, pools * C)` in float32."""
        import torch

        states = states.float()
        if states.shape[1] == count and "cls" in self.settings.pool:
            raise AgiqaError(
                f"Model '{self.folder.name}' has no class token: leave cls out of visual.pool."
            )
        patches = states[:, -count:]
        pooled = {"cls": states[:, 0], "mean": patches.mean(dim=1), "std": patches.std(dim=1)}
        return torch.cat([pooled[pool] for pool in self.settings.pool], dim=1)

    def load(self) -> None:
        """Read the tower's weights, unless that is done.

        Raises:
            AgiqaError: they cannot be read, or the model has no tower.
        """
        if self.tower is not None:
            return
        from transformers import AutoModel

        model = load_model(AutoModel, self.folder, self.settings.dtype, self.settings.attention)
        is_tower = not hasattr(model.config, "vision_config")
        towers = [model] if is_tower else [getattr(model, p) for p in PARTS if hasattr(model, p)]
        if not towers:
            raise AgiqaError(
                f"Model '{self.folder.name}' ({type(model).__name__}) has none of "
                f"{', '.join(PARTS)}, which the visual extractor needs."
            )
        self.tower = towers[0]

    def _check(self) -> None:
        depth = self.depth
        wrong = [layer for layer in self.settings.layers if not 1 <= layer <= depth]
        if wrong or not self.settings.layers:
            raise AgiqaError(
                f"visual.layers expects blocks from 1 to {depth} of '{self.folder.name}', "
                f"found {list(self.settings.layers)}."
            )
        patch = self.patch_size
        if self.settings.image_size < patch or self.settings.image_size % patch:
            raise AgiqaError(
                f"visual.image_size expects a multiple of {patch}, the patches of "
                f"'{self.folder.name}', found {self.settings.image_size}."
            )
        own, closeup = self.own_size, self.settings.closeup
        if closeup != 0 and closeup < own:
            raise AgiqaError(
                f"visual.closeup expects 0 or at least {own}, the size of '{self.folder.name}', "
                f"found {closeup}."
            )
        unknown = [pool for pool in self.settings.pool if pool not in POOLS]
        if unknown or not self.settings.pool:
            raise AgiqaError(
                f"visual.pool expects some of {', '.join(POOLS)}, found {list(self.settings.pool)}."
            )

    def _describe(self) -> tuple[Vector, ...]:
        shared = {
            "extractor": "vision",
            "model": self.folder.part_identity(TOWER) | {"config": self.config.to_diff_dict()},
            "pool": list(self.settings.pool),
            "dtype": self.settings.dtype,
            "attention": self.settings.attention,
            "stored_as": self.precision,
            "libraries": libraries(self.config, self.settings.attention),
        }
        return tuple(
            Vector(
                f"{view.name}{layer}",
                shared
                | {"preprocessing": self._processors[view.name].to_dict() | {"backend": "pil"}}
                | ({"centre": view.side} if view.side != view.size else {})
                | {"layer": layer},
                self.width,
            )
            for view in self.views
            for layer in self.settings.layers
        )
