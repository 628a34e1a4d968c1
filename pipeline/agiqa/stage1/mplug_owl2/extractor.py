"""Semantic vectors by mPLUG-Owl2, the LMM of MA-AGIQA (arXiv:2404.17762). Stage 1.

As `ImageTextExtractor`, for a model that transformers does not have. An image is encoded once for
all prompts. The text before the image is run once for all images: attention is causal, so no image
can change it, and the vectors are the same as in one pass. The vector is the mean over all
positions, text and image, of the last hidden state after the final norm, taken in float32.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from agiqa.core.errors import AgiqaError
from agiqa.core.memory import in_batches_that_fit
from agiqa.core.params import Semantic
from agiqa.data.prompts import LIKELIHOOD, VOCABULARY, WORDS, PromptSet, read_prompt_set
from agiqa.stage1.extractors.contract import Recipe, Sample, Vector, at_any_folder, batch, running
from agiqa.stage1.extractors.identity import batch_size, libraries
from agiqa.stage1.extractors.lmm.inputs import first_tokens
from agiqa.stage1.extractors.loading import find_model
from agiqa.stage1.mplug_owl2.loading import load_config, load_model
from agiqa.stage1.mplug_owl2.network import MplugOwl2Model, MplugOwl2WithHead, Prefix
from agiqa.stage1.mplug_owl2.processing import (
    IMAGE_MARKER,
    TokenizedText,
    load_tokenizer,
    normalise,
    preprocessing,
    square,
    tokenize,
)
from agiqa.store import ANSWERS

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


class MplugOwl2Extractor:
    """One vector for each prompt of a prompt set, and its answers. Weights load on first use.

    Raises:
        AgiqaError: the folder's configuration or tokenizer is absent or another model's.
    """

    def __init__(self, settings: Semantic, prompt_set: PromptSet | None = None) -> None:
        self.settings = settings
        self.prompt_set: PromptSet = prompt_set or read_prompt_set(settings.prompts)
        _require_plain(self.prompt_set)
        self.folder = find_model(settings.model, settings.revision)
        self.name = settings.name
        self.batch_size = batch_size(settings.batch_size)
        self.precision = settings.precision
        config = load_config(self.folder.path)
        self.width = int(config.hidden_size)
        self._image_size = config.vision.image_size
        tokenizer = load_tokenizer(self.folder.path, config.vocab_size)
        self.texts = tuple(
            tokenize(tokenizer, config.bos_token_id, IMAGE_MARKER.join(self.prompt_set.text(name)))
            for name in self.prompt_set.prompts
        )
        self._words = [
            first_tokens(
                lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
                self.prompt_set.text(name)[1],
                self.prompt_set.answers,
            )
            for name in self.prompt_set.prompts
        ]
        self._model: SemanticVectors | None = None
        self.vectors = self._describe()

    def recipe(self) -> Recipe:
        """Give the class and its arguments."""
        return Recipe(type(self), (at_any_folder(self.settings), self.prompt_set))

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """Turn an RGB image into uint8 pixels `(1, 3, H, W)`, normalised on the device."""
        return Sample({"pixel_values": square(image, self._image_size)[None]})

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples into float32 `(B, D)` or answers `(B, K)` for each wanted vector."""
        model = self._model = self._model or self._load()
        asked = sorted({index % len(self.texts) for index in wanted})
        with running(self.folder.name):
            made = model(batch(samples)["pixel_values"], asked)
        rows = []
        for index in wanted:
            answered, prompt = divmod(index, len(self.texts))
            row = made[:, asked.index(prompt)]
            rows.append(row[:, self.width :] if answered else row[:, : self.width])
        return rows

    def _load(self) -> SemanticVectors:
        chosen, settings = self.prompt_set, self.settings
        network = MplugOwl2WithHead if chosen.answers else MplugOwl2Model
        model = load_model(self.folder.path, settings.dtype, settings.attention, network)
        words = self._words if chosen.answers else ()
        return SemanticVectors(model, self.texts, self.batch_size, words, chosen.answers_over)

    def _describe(self) -> tuple[Vector, ...]:
        chosen = self.prompt_set
        shared: dict[str, object] = {
            "extractor": "mplug_owl2",
            "model": self.folder.identity(),
            "preprocessing": preprocessing(self._image_size),
            "dtype": self.settings.dtype,
            "attention": self.settings.attention,
            "stored_as": self.precision,
            "libraries": libraries(None),
        }
        vectors, answers = [], []
        for (name, text), tokens in zip(chosen.prompts.items(), self.texts, strict=True):
            prompt: dict[str, object] = {"text": text, "template": chosen.template}
            prompt |= {"reply": chosen.reply} if chosen.reply else {}
            prompt["tokens"] = [*tokens.before, -1, *tokens.after]  # -1: the image
            pooled = shared | {"prompt": prompt | {"pooling": "mean"}}
            vectors.append(Vector(name, pooled, self.width))
            prompt |= {"over": chosen.answers_over} if chosen.answers_over != WORDS else {}
            asked = shared | {"prompt": prompt | {"answers": list(chosen.answers)}}
            answers.append(Vector(name, asked, len(chosen.answers), ANSWERS))
        return (*vectors, *answers) if chosen.answers else tuple(vectors)


def _require_plain(prompt_set: PromptSet) -> None:
    """Refuse what only models of transformers can be asked here."""
    asks = any(prompt_set.asks_image_prompt(name) for name in prompt_set.prompts)
    likely = prompt_set.answers_over == LIKELIHOOD
    if prompt_set.poolings != ("mean",) or likely or prompt_set.is_chat or asks:
        raise AgiqaError(
            f"Prompt set '{prompt_set.name}': mPLUG-Owl2 takes sets with a template of their own, "
            f"the pooling mean and no {{image_prompt}} or answers: {LIKELIHOOD}, such as ma_agiqa."
        )
