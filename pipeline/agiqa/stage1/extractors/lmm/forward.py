"""One image, many prompts: what the passes of an image-text model have in common is run once.

The image is encoded once for all prompts. The text before it is run once for all images, and where
the image stands first, image and text up to where the prompts part are run once for all prompts:
attention is causal, so what comes later cannot change them. Not every model is causal (PaliGemma
looks both ways), so the first image of all is also run as transformers would, and what does not
give the same vectors is not shared. Only the last hidden state after the final norm is kept, and
no vocabulary is scored but at a text's last position.

A pooling is a weight for each position, so that hidden states can be summed over the parts of a
text that are run at different times.
"""

import copy
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agiqa.core.errors import AgiqaError
from agiqa.stage1.extractors.int8 import Int8Linear

log = logging.getLogger(__name__)

ROWS = 128  # texts run at a time behind a shared image
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}  # of a vector's norm
# What models raise on a pass that their code does not foresee.
OF_SHARING = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError)
WHOLE = "token_type_ids"  # which tokens attend to each other: asked for from the first one on
VISION_ONLY = ("pixel_values", "pixel_attention_mask")  # arrays that the language model never asks


class Shares(NamedTuple):
    """What is run once: from all to nothing."""

    image: bool  # for all prompts
    common: bool  # image and text up to where the prompts part, for all prompts
    lead: bool  # the text before the image, for all images


LEVELS = (
    Shares(True, True, True),
    Shares(True, True, False),
    Shares(True, False, False),
    Shares(False, False, False),
)


@dataclass(frozen=True, eq=False)
class Tokens:
    """One prompt with the image, for B images of one shape."""

    arrays: Mapping[str, Tensor]  # input_ids and type ids, each (B, L), filled up on the right
    lengths: Tensor  # (B,)
    # Where the image's own prompt starts, with which the texts end: its likelihood is wanted.
    own_starts: Sequence[int] | None = None

    @property
    def ids(self) -> Tensor:
        """Give the token ids alone, `(B, L)`."""
        return self.arrays["input_ids"]


@dataclass(frozen=True, eq=False)
class Encoded:
    """B images of one shape as the vision half encodes them."""

    output: Any  # of get_image_features
    arrays: Mapping[str, Tensor]
    images: int  # B


def weights(poolings: Sequence[str], image: Tensor, lengths: Tensor) -> Tensor:
    """Give weights `(B, K, L)` of K poolings, float32; zero behind a text's end.

    Args:
        poolings: some of `data.prompts.POOLINGS`.
        image: which positions `(B, L)` hold the image.
        lengths: tokens `(B,)` of each text, image included.
    """
    position = torch.arange(image.shape[1], device=image.device)
    real = position < lengths[:, None]
    kinds = {
        "mean": real,
        "text_mean": real & ~image,
        "image_mean": real & image,
        "last": position == lengths[:, None] - 1,
    }
    chosen = torch.stack([kinds[pooling] for pooling in poolings], dim=1).float()
    return chosen / chosen.sum(dim=-1, keepdim=True).clamp_min(1)


class Vectors(NamedTuple):
    """What a prompt's texts become."""

    pooled: Tensor  # (B, layers + 1, K, D) float32; the last of the layers is the normed output
    last: Tensor  # (B, D): the output at the last position
    outputs: Tensor | None = None  # (B, L, D): at every position, where that was asked for


@dataclass(eq=False)
class PooledSums:
    """Vectors in the making: states of parts of the texts are added as they are run."""

    weights: Tensor  # (B, K, L), of `weights`
    lengths: Tensor
    pooled: Tensor | None = None
    last: Tensor | None = None
    outputs: list[Tensor] | None = None  # of each part; None: not wanted

    def add(self, states: Sequence[Tensor], start: int) -> None:
        """Add states `(B or 1, l, D)` of each layer, those of positions from `start` on."""
        stop = start + states[0].shape[1]
        share = self.weights[:, :, start:stop]
        pooled = torch.stack(
            [
                torch.einsum("bld,bkl->bkd", s.float().expand(len(share), -1, -1), share)
                for s in states
            ],
            dim=1,
        )
        self.pooled = pooled if self.pooled is None else self.pooled + pooled
        last = self.lengths - 1 - start  # counted from the first of these states
        within = (last >= 0) & (last < stop - start)
        rows = torch.arange(len(last), device=last.device)
        output = states[-1].expand(len(last), -1, -1)[rows, last.clamp(0, stop - start - 1)]
        self.last = output if self.last is None else torch.where(within[:, None], output, self.last)
        if self.outputs is not None:
            self.outputs.append(states[-1].expand(len(last), -1, -1))

    def vectors(self) -> Vectors:
        """Give the vectors, once all parts are added."""
        assert self.pooled is not None
        assert self.last is not None
        outputs = None if self.outputs is None else torch.cat(self.outputs, dim=1)
        return Vectors(self.pooled, self.last, outputs)


@dataclass(eq=False)
class SharedForward:
    """The passes of one model."""

    model: Any  # a transformers model for image and text to text, in eval mode
    poolings: Sequence[str]  # of the states over positions
    layers: Sequence[int] = ()  # blocks of the language model, from 1, whose outputs are wanted too
    shares: Shares | None = None  # what was found to be right; None: not tried yet
    # Texts before an image that were run, by their tokens: the cache behind, and the states
    # (1, l, D) of each layer.
    _leads: dict[tuple[int, ...], tuple[Any, list[Tensor]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.model.config
        self.inner = self.model.model
        token = getattr(config, "image_token_id", None)
        self.image_token = int(config.image_token_index if token is None else token)
        blocks = decoder_blocks(self.model)
        wrong = [layer for layer in self.layers if not 1 <= layer <= len(blocks)]
        if wrong:
            raise AgiqaError(
                f"semantic.layers expects blocks from 1 to {len(blocks)}, found {wrong}."
            )
        self._blocks = [blocks[layer - 1] for layer in self.layers]

    def forget(self) -> None:
        """Drop what was kept of earlier images' texts: the weights have changed."""
        self._leads.clear()

    def encode(self, arrays: Mapping[str, Tensor], images: int) -> Encoded:
        """Encode B images of one shape: `arrays` as their processor makes them."""
        output = self.model.get_image_features(
            **_accepted(self.inner.get_image_features, arrays), return_dict=True
        )
        return Encoded(output, arrays, images)

    def __call__(
        self, encoded: Encoded, prompts: Sequence[Tokens], shares: Shares | None = None
    ) -> list[Vectors]:
        """Compute the vectors of each prompt for the images, by default as `prove` found."""
        shares = shares or self.shares
        assert shares is not None
        sums = [self._sums(prompt) for prompt in prompts]
        common = self._common(prompts) if shares.common and len(prompts) > 1 else 0
        if common:
            self._run_together(encoded, prompts, sums, common, shares)
        else:  # each prompt in one pass, but for the text before the image
            for prompt, own_sums in zip(prompts, sums, strict=True):
                start, cache = self._begin(prompt, own_sums, encoded.images, shares)
                positions = self._positions(encoded, prompt) if start else None
                part = (start, prompt.ids.shape[1])
                states, _ = self._run(prompt, part, encoded, shares, cache, positions)
                own_sums.add(states, start)
        return [own_sums.vectors() for own_sums in sums]

    def _run_together(
        self,
        encoded: Encoded,
        prompts: Sequence[Tokens],
        sums: Sequence[PooledSums],
        common: int,
        shares: Shares,
    ) -> None:
        """Run image and text up to `common` once, then every prompt's rest behind it."""
        first = prompts[0]
        start, cache = self._begin(first, sums[0], encoded.images, shares)
        for own_sums in sums[1:]:
            if start:
                own_sums.add(self._leads[tuple(first.ids[0, :start].tolist())][1], 0)
        positions = [self._positions(encoded, prompt) for prompt in prompts]
        part = (start, common)
        states, cache = self._run(first, part, encoded, shares, cache, positions[0], True)
        for own_sums in sums:
            own_sums.add(states, start)
        step = max(1, ROWS // encoded.images)
        for begin in range(0, len(prompts), step):
            rest = slice(begin, begin + step)
            self._run_rest(prompts[rest], sums[rest], positions[rest], common, cache)

    def _run_rest(
        self,
        prompts: Sequence[Tokens],
        sums: Sequence[PooledSums],
        positions: Sequence[Tensor],
        common: int,
        cache: Any,
    ) -> None:
        """Run the prompts' rests in one batch, rows of one image beside each other."""
        longest = max(prompt.ids.shape[1] for prompt in prompts)

        def rows(parts: Sequence[Tensor], start: int) -> Tensor:  # (..., B, L) to (..., B * P, L')
            filled = [
                torch.nn.functional.pad(part, (0, longest - part.shape[-1]))[..., start:]
                for part in parts
            ]
            return torch.stack(filled, dim=-2).flatten(-3, -2)

        past = copy.deepcopy(cache)
        past.batch_repeat_interleave(len(prompts))
        arrays = {
            name: rows([prompt.arrays[name] for prompt in prompts], 0 if name == WHOLE else common)
            for name in prompts[0].arrays
        }
        arrays.pop("mm_token_type_ids", None)  # they serve the positions, which are given
        images = len(prompts[0].ids)
        rest = [part.expand(*part.shape[:-2], images, -1) for part in positions]
        with self._recorded() as states:
            output = self.inner(
                **arrays, position_ids=rows(rest, common), past_key_values=past, use_cache=True
            )
        states.append(output.last_hidden_state)
        for index, (prompt, own_sums) in enumerate(zip(prompts, sums, strict=True)):
            stop = prompt.ids.shape[1] - common
            own_sums.add([state[index :: len(prompts), :stop] for state in states], common)

    def _begin(
        self, prompt: Tokens, sums: PooledSums, images: int, shares: Shares
    ) -> tuple[int, Any]:
        """Find where the pass starts, and the cache of the text that lies before the image."""
        length = self._lead_length(prompt) if shares.lead else 0
        if not length:
            return 0, None
        ids = tuple(prompt.ids[0, :length].tolist())
        if ids not in self._leads:
            alone = Tokens({n: a[:1] for n, a in prompt.arrays.items()}, prompt.lengths[:1])
            positions = torch.arange(length, device=prompt.ids.device)[None]
            if hasattr(self.inner, "get_rope_index"):
                positions = positions.expand(3, 1, -1)  # plain text: the same in all three
            states, cache = self._run(alone, (0, length), None, shares, None, positions, True)
            self._leads[ids] = cache, states
        kept, states = self._leads[ids]
        sums.add(states, 0)
        cache = copy.deepcopy(kept)
        cache.batch_repeat_interleave(images)
        return length, cache

    def _run(
        self,
        prompt: Tokens,
        part: tuple[int, int],
        encoded: Encoded | None,
        shares: Shares,
        cache: Any,
        positions: Tensor | None,
        keep: bool = False,
    ) -> tuple[list[Tensor], Any]:
        """Run a part of the text to each layer's states `(B, l, D)`, and the cache behind."""
        start, stop = part
        given: dict[str, Any] = {
            name: a[:, 0 if name == WHOLE else start : stop] for name, a in prompt.arrays.items()
        }
        if positions is not None:
            given.pop("mm_token_type_ids", None)
            given["position_ids"] = positions[..., start:stop]
        if encoded is not None:
            arrays = dict(encoded.arrays)
            if shares.image:
                arrays = {n: a for n, a in arrays.items() if n not in VISION_ONLY}
                given["mm_encoder_outputs"] = {"image": encoded.output}
            given |= _accepted(self.inner.forward, arrays)
        with self._recorded() as states:
            output = self.inner(**given, past_key_values=cache, use_cache=keep or cache is not None)
        states.append(output.last_hidden_state)
        return states, output.past_key_values if keep else None

    @contextmanager
    def _recorded(self) -> Iterator[list[Tensor]]:
        """Record the outputs of the wanted blocks while it lasts."""
        states: list[Tensor] = []

        def record(_module: Any, _inputs: Any, output: Any) -> None:
            states.append(output if torch.is_tensor(output) else output[0])

        hooks = [block.register_forward_hook(record) for block in self._blocks]
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()

    def _sums(self, prompt: Tokens) -> PooledSums:
        image = prompt.ids == self.image_token
        outputs = None if prompt.own_starts is None else list[Tensor]()
        share = weights(self.poolings, image, prompt.lengths)
        return PooledSums(share, prompt.lengths, outputs=outputs)

    def _positions(self, encoded: Encoded, prompt: Tokens) -> Tensor:
        """Number the whole text: `(1, L)`, or `(3, B, L)` where the model counts in three."""
        if not hasattr(self.inner, "get_rope_index"):
            return torch.arange(prompt.ids.shape[1], device=prompt.ids.device)[None]
        ask = self.inner.get_rope_index
        positions: Tensor = ask(**_accepted(ask, {**encoded.arrays, **prompt.arrays}))[0]
        return positions

    def _lead_length(self, prompt: Tokens) -> int:
        """Count the tokens before the image, if they are the same for all images."""
        first = int((prompt.ids[0] == self.image_token).int().argmax())
        same = bool((prompt.ids[:, :first] == prompt.ids[:1, :first]).all())
        return first if same else 0

    def _common(self, prompts: Sequence[Tokens]) -> int:
        """Count tokens that all texts begin with, if they hold the image and all go on; or 0."""
        shortest = int(min(int(prompt.lengths.min()) for prompt in prompts)) - 1
        first = prompts[0].ids[:1, :shortest]
        same = torch.stack(
            [(prompt.ids[:, :shortest] == first).all(dim=0) for prompt in prompts]
        ).all(dim=0)
        common = int(same.int().cumprod(dim=0).sum())
        image = torch.nonzero(prompts[0].ids[0] == self.image_token)
        return common if len(image) and common > int(image.max()) else 0

    def prove(self, encoded: Encoded, prompts: Sequence[Tokens]) -> Shares:
        """Find the most that can be shared, on a few images; each way is tried on them."""
        plain = self(encoded, prompts, LEVELS[-1])
        rounds = any(isinstance(module, Int8Linear) for module in self.model.modules())
        dtype = torch.int8 if rounds else plain[0].last.dtype
        limit = TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16])
        for shares in LEVELS[:-1]:
            self.forget()
            try:
                shared = self(encoded, prompts, shares)
            except OF_SHARING as error:
                log.debug("%s: %s", shares, error)
                continue
            if max(_distance(a, b) for a, b in zip(shared, plain, strict=True)) <= limit:
                if shares != LEVELS[0]:
                    kinds = ", ".join(kind for kind, on in shares._asdict().items() if on)
                    log.info("%s: shared between prompts: %s", type(self.model).__name__, kinds)
                return shares
        log.warning(
            "%s: no pass can be shared between prompts; the image is encoded for each of them",
            type(self.model).__name__,
        )
        return LEVELS[-1]


def decoder_blocks(model: Any) -> Any:
    """List the language model's blocks, in order."""
    for name in ("language_model", "text_model"):
        language = getattr(model.model, name, None)
        if language is not None and hasattr(language, "layers"):
            return language.layers
    raise AgiqaError(
        f"{type(model).__name__} has no language model with separate blocks, which the semantic "
        "extractor needs: use another model."
    )


def _accepted(function: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Select those of `arrays` that the function names as arguments."""
    names = inspect.signature(function).parameters
    return {name: array for name, array in arrays.items() if name in names}


def _distance(shared: Vectors, plain: Vectors) -> float:
    """Measure the largest relative distance between two vectors of the same image."""
    gap = (shared.pooled - plain.pooled).norm(dim=-1)
    return float((gap / plain.pooled.norm(dim=-1).clamp_min(1e-6)).max())
