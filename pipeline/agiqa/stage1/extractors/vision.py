"""Visual features: a frozen vision transformer's layers, pooled. Stage 1 of the `light` preset.

For each chosen block: the class token, and mean and standard deviation over the patches. Early
blocks carry distortions, late ones content. The image is seen whole, and its centre once more from
close up, where shrinking has not hidden texture yet.

And tokens: hidden states of one block, for the preset `tuned` to train from. The blocks up to it
stay frozen, so that an image passes through them once; those behind, the tail, are trained in stage
2 from what is kept here. One vector an image: the tokens one after the other, those that belong to
no patch (a class token) first, then the patches row by row.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.json_text import json_text
from agiqa.core.params import Visual
from agiqa.core.whole_files import write_whole
from agiqa.stage1.extractors.contract import Recipe, Sample, Vector, at_any_folder, batch, running
from agiqa.stage1.extractors.identity import libraries
from agiqa.stage1.extractors.loading import (
    find_model,
    load_config,
    load_image_processor,
    load_model,
    preprocess,
)
from agiqa.store import TOKENS, digest

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
        self.load()
        depth = len(self.settings.layers)
        vectors: dict[int, Any] = {}
        pixels = batch(samples)
        with running(self.folder.name):
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
        self.load()
        pixels = batch(samples)
        with running(self.folder.name):
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


class Tower(NamedTuple):
    """What the towers of one kind are made of."""

    others: int  # tokens that are of no patch
    norm: str  # behind the blocks


TOWERS = {  # by transformers' model_type
    "clip_vision_model": Tower(1, "post_layernorm"),
    "siglip_vision_model": Tower(0, "post_layernorm"),
    "vit": Tower(1, "layernorm"),
    "dinov2": Tower(1, "layernorm"),
}


class _ReachedError(Exception):
    """The block behind the tokens is about to run; its input is what is asked for."""


class TokenExtractor:
    """Tokens of block `visual.tokens`, of the image at `visual.token_size` pixels a side.

    Args:
        settings: section visual, tokens not 0.
        visual: an extractor of the same model, whose weights serve both; by default another one.

    Raises:
        AgiqaError: no such block or size, or a tower whose blocks are not a list.
    """

    def __init__(self, settings: Visual, visual: VisionExtractor | None = None) -> None:
        self.settings = settings
        own = replace(
            settings,
            layers=(max(1, settings.tokens),),
            image_size=settings.token_size,
            closeup=0,
        )
        try:
            self._own, self._loaded = VisionExtractor(own), visual
        except AgiqaError as error:  # in the words of the settings that were given
            message = str(error).replace("visual.layers", "visual.tokens")
            raise AgiqaError(message.replace("visual.image_size", "visual.token_size")) from error
        self.name = f"{settings.name}-{TOKENS}"
        self.batch_size, self.precision = settings.batch_size, settings.precision
        self._check()
        self._kind = TOWERS[self._own.config.model_type]
        self.width = self._own.width // len(settings.pool)  # C, numbers of a token
        self.vectors: tuple[Vector, ...] = (self._describe(),)

    def recipe(self) -> Recipe:
        """Give the class and its arguments."""
        return Recipe(type(self), (at_any_folder(self.settings),))

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """Turn an RGB image into float32 pixels `(1, 3, H, H)`."""
        return self._own.preprocess(image)

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples into their tokens, float32 `(B, L * C)`."""
        tower = self._tower()
        (pixels,) = batch(samples).values()
        with running(self._own.folder.name):
            tokens = self._pooled(self._states(tower, pixels), pixels.shape[-1])
            return [tokens.flatten(1).cpu().numpy() for _ in wanted]

    def write_tail(self, path: Path) -> None:
        """Write what is behind the tokens, for stage 2 to start from, unless it is there.

        As safetensors: tensors of the blocks as `0.…`, `1.…` and of the last norm as `norm.…`,
        with transformers' names. The metadata has, under `tail`, heads, activation and eps, and
        the digest of the tokens' fingerprint.

        Raises:
            AgiqaError: the disk refuses.
        """
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import save

        config = self._own.config
        about = {
            "heads": int(config.num_attention_heads),
            "activation": str(config.hidden_act),
            "eps": float(config.layer_norm_eps),
            "made_by": digest(self.vectors[0].fingerprint),
        }
        with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
            if file.metadata() == {"tail": json_text(about)}:
                return
        tower = self._tower()
        blocks = self._blocks(tower)[self.settings.tokens :].state_dict()
        norm = getattr(tower, self._kind.norm).state_dict()
        named = blocks | {f"norm.{name}": tensor for name, tensor in norm.items()}
        tail = {name: tensor.float().cpu().contiguous() for name, tensor in named.items()}
        write_whole(path, save(tail, {"tail": json_text(about)}))

    def _tower(self) -> Any:
        """The tower, its weights loaded once for both extractors."""
        extractor = self._loaded or self._own
        extractor.load()
        return extractor.tower

    def _states(self, tower: Any, pixels: np.ndarray) -> Any:
        """Run pixels `(B, 3, H, H)` as far as the block: `(B, others + patches, C)`."""
        import torch

        images = torch.from_numpy(pixels).to(tower.device, tower.dtype)
        states: list[Any] = []

        def keep(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            states.append(given[0] if given else named["hidden_states"])
            raise _ReachedError

        behind = self._blocks(tower)[self.settings.tokens]
        hook = behind.register_forward_pre_hook(keep, with_kwargs=True)
        with hook, suppress(_ReachedError):
            tower(pixel_values=images, **self._own.interpolation(pixels))
        return states[0]

    def _pooled(self, states: Any, side: int) -> Any:
        """Make the mean of neighbouring patches one token, in float32: `(B, L, C)`."""
        import torch

        states, pool = states.float(), self.settings.token_pool
        if pool == 1:
            return states
        rows = side // self._own.patch_size
        others, patches = states[:, : -rows * rows], states[:, -rows * rows :]
        squares = patches.unflatten(1, (rows // pool, pool, rows // pool, pool))
        return torch.cat([others, squares.mean(dim=(2, 4)).flatten(1, 2)], dim=1)

    def _blocks(self, tower: Any) -> Any:
        """Find the tower's list of blocks."""
        import torch

        lists = (module for module in tower.modules() if isinstance(module, torch.nn.ModuleList))
        return next(blocks for blocks in lists if len(blocks) == self._own.depth)

    def _check(self) -> None:
        block, depth = self.settings.tokens, self._own.depth
        if self._own.config.model_type not in TOWERS:
            raise AgiqaError(
                f"visual.tokens is for towers of the kinds {', '.join(TOWERS)}, and "
                f"'{self._own.folder.name}' has a {self._own.config.model_type}: use another "
                "visual.model, or the preset light with visual.tokens 0."
            )
        if not 1 <= block < depth:
            raise AgiqaError(
                f"visual.tokens expects a block from 1 to {depth - 1} of "
                f"'{self._own.folder.name}', behind which others are, found {block}."
            )
        if self.settings.dtype == "int8":
            raise AgiqaError(
                "visual.tokens expects weights that can be trained, found visual.dtype int8: take "
                "float32, or visual.tokens 0."
            )
        step = self._own.patch_size * self.settings.token_pool
        if self.settings.token_size % step:
            raise AgiqaError(
                f"visual.token_size expects a multiple of {step} for '{self._own.folder.name}' "
                f"with visual.token_pool {self.settings.token_pool}, found "
                f"{self.settings.token_size}."
            )

    def _describe(self) -> Vector:
        """Describe the one vector; its length depends on the tokens that are of no patch."""
        (layer,) = self._own.vectors
        made_by = {name: value for name, value in layer.fingerprint.items() if name != "pool"}
        size, pool = self.settings.token_size, self.settings.token_pool
        patches = (size // self._own.patch_size // pool) ** 2
        tokens = patches + self._kind.others
        shape = {"tokens": tokens, "patches": patches, "token_size": size, "token_pool": pool}
        return Vector(f"block{self.settings.tokens}", made_by | shape, tokens * self.width)
