"""Semantic vectors by mPLUG-Owl2: pixels and tokenised prompts to pooled hidden states.

An image is encoded once for all prompts. The text before the image is run once for all images:
attention is causal, so no image can change it, and the vectors are the same as in one pass. The
vector is the mean over all positions, text and image, of the last hidden state after the final
norm, taken in float32.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from agiqa.core.memory import in_batches_that_fit
from agiqa.data.prompts import VOCABULARY, WORDS
from agiqa.stage1.mplug_owl2.modeling import MplugOwl2Model, MplugOwl2WithHead, Prefix
from agiqa.stage1.mplug_owl2.processing import TokenizedText, normalise

log = logging.getLogger(__name__)

ADVICE = "or take semantic.dtype=bfloat16 or float16; finished vectors are kept"


class SemanticVectors:
    """Vectors of images for fixed prompts; beside them the probabilities of words that may follow.

    Images are worked on `batch_size` at a time. Where the GPU's memory is too small for that, the
    number is halved, for good, and a warning says so. All batches after it have one shape again; a
    vector's last bits may differ from those of a larger batch, as with any other `batch_size`,
    which is why fingerprints do not hold it.

    A vector that is not finite in float16 or bfloat16 is computed again in float32, its image
    alone, so that it depends neither on its batch nor on the other prompts. That needs no second
    model: each block's weights are cast when it runs (0.9 GB at a time for LLaMA-7B).

    Args:
        model: with its head where there are words.
        prompts: as tokens.
        batch_size: B.
        words: for each prompt the words' first tokens, K of them; by default no words.
        over: what the probabilities sum to 1 over: the words, or the vocabulary.
    """

    def __init__(
        self,
        model: MplugOwl2Model,
        prompts: Sequence[TokenizedText],
        batch_size: int,
        words: Sequence[Sequence[int]] = (),
        over: str = WORDS,
    ) -> None:
        self.model, self.prompts, self.batch_size = model, tuple(prompts), batch_size
        self.words, self.over = words, over
        self._dtype = next(model.embed_tokens.parameters()).dtype
        self._device = next(model.vision_model.parameters()).device
        self._prefixes: dict[tuple[int, torch.dtype], Prefix] = {}
        self._overflowed = False

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
        """Turn uint8 pixels `(B, 3, S, S)` into float32 `(B, len(wanted), D + K)`.

        Raises:
            AgiqaError: the GPU's memory is too small for one image.
        """

        def vectors(start: int, stop: int) -> np.ndarray:
            batch = pixels[start:stop]
            missing = min(self.batch_size, len(pixels)) - len(batch)  # after halving an odd number
            filled = np.concatenate([batch, np.repeat(batch[:1], missing, axis=0)])
            return self._finite(filled, wanted)[: len(batch)]

        def halved(size: int) -> None:
            self.batch_size = size

        return np.concatenate(
            in_batches_that_fit(len(pixels), self.batch_size, vectors, halved, ADVICE)
        )

    def _finite(self, pixels: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
        """Compute as `__call__`; vectors that overflow are computed again in float32."""
        vectors = self._vectors(pixels, wanted, self._dtype)
        lost = ~np.isfinite(vectors).all(axis=-1)  # (B, wanted)
        if self._dtype == torch.float32 or not lost.any():
            return vectors
        if not self._overflowed:
            self._overflowed = True
            log.warning(
                "A vector overflowed in %s: such images are computed again in float32, which is "
                "slower. semantic.dtype=bfloat16 has float32's range.",
                str(self._dtype).removeprefix("torch."),
            )
        for row in np.flatnonzero(lost.any(axis=1)):
            overflowed = [prompt for prompt, bad in zip(wanted, lost[row], strict=True) if bad]
            alone = pixels[row : row + 1]
            vectors[row, lost[row]] = self._vectors(alone, overflowed, torch.float32)[0]
        return vectors

    def _vectors(self, pixels: np.ndarray, wanted: Sequence[int], dtype: torch.dtype) -> np.ndarray:
        images = normalise(torch.from_numpy(pixels).to(self._device)).to(dtype)
        visual = self.model.encode_images(images)
        return torch.stack([self.pool(visual, p) for p in wanted], dim=1).cpu().numpy()

    def pool(self, visual: Tensor, prompt: int) -> Tensor:
        """Pool images' visual tokens `(B, V, D)` with the prompt: `(B, D + K)`, float32.

        K answers stand behind the vector; without words there is none.
        """
        prefix = self._prefix(prompt, visual.dtype)
        ids = torch.tensor([self.prompts[prompt].after], dtype=torch.long, device=visual.device)
        after = self.model.embed(ids, visual.dtype).to(visual.device)
        embedded = torch.cat([visual, after.expand(len(visual), -1, -1)], dim=1)
        states = self.model.decode(embedded, (0, visual.shape[1]), prefix)
        before = prefix.states.float()
        total = states.float().sum(dim=1) + before.sum(dim=1)
        mean = total / (states.shape[1] + before.shape[1])
        if not self.words:
            return mean
        assert isinstance(self.model, MplugOwl2WithHead)
        logits, words = self.model.logits(states[:, -1]), list(self.words[prompt])
        if self.over == VOCABULARY:
            answers = logits.softmax(dim=1)[:, words]
        else:
            answers = logits[:, words].softmax(dim=1)
        return torch.cat([mean, answers.to(mean.device)], dim=1)

    def _prefix(self, prompt: int, dtype: torch.dtype) -> Prefix:
        if (prompt, dtype) not in self._prefixes:
            ids = torch.tensor([self.prompts[prompt].before], device=self._device)
            self._prefixes[prompt, dtype] = self.model.run_prefix(ids, dtype)
        return self._prefixes[prompt, dtype]
