"""Tokens: hidden states of one block of the visual backbone, for the preset `tuned` to train from.

The blocks up to it stay frozen, so that an image passes through them once; those behind, the tail,
are trained in stage 2 from what is kept here. One vector an image: the tokens one after the other,
those that belong to no patch (a class token) first, then the patches row by row.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.float32 import full_float32
from agiqa.core.json_text import json_text
from agiqa.core.params import Visual
from agiqa.core.whole_files import write_whole
from agiqa.stage1.extractors.contract import Recipe, Sample, Vector, at_any_folder, batch
from agiqa.stage1.extractors.failures import naming
from agiqa.stage1.extractors.vision import VisionExtractor
from agiqa.store import TOKENS, digest


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
        self.vectors = (self._describe(),)

    def recipe(self) -> Recipe:
        """Give the class and its arguments."""
        return Recipe(type(self), (at_any_folder(self.settings),))

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """Turn an RGB image into float32 pixels `(1, 3, H, H)`."""
        return self._own.preprocess(image)

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples into their tokens, float32 `(B, L * C)`."""
        import torch

        tower = self._tower()
        (pixels,) = batch(samples).values()
        with torch.inference_mode(), naming(self._own.folder.name), full_float32():
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
