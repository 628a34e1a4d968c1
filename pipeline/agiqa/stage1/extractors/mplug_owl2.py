"""Semantic vectors by mPLUG-Owl2, the LMM of MA-AGIQA (arXiv:2404.17762). Stage 1.

As `ImageTextExtractor`, for a model that transformers does not have: its own network, tokenisation
and preprocessing are in `agiqa.stage1.mplug_owl2`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.float32 import full_float32
from agiqa.core.params import Semantic
from agiqa.data.prompts import LIKELIHOOD, WORDS, PromptSet, read_prompt_set
from agiqa.stage1.extractors.contract import Recipe, Sample, Vector, at_any_folder, batch
from agiqa.stage1.extractors.environment import libraries
from agiqa.stage1.extractors.failures import naming
from agiqa.stage1.extractors.lmm.texts import first_tokens
from agiqa.stage1.extractors.loading import find_model
from agiqa.stage1.extractors.model_memory import batch_size
from agiqa.store import ANSWERS

if TYPE_CHECKING:
    from agiqa.stage1.mplug_owl2.vectors import SemanticVectors


class MplugOwl2Extractor:
    """One vector for each prompt of a prompt set, and its answers. Weights load on first use.

    Raises:
        AgiqaError: the folder's configuration or tokenizer is absent or another model's.
    """

    def __init__(self, settings: Semantic, prompt_set: PromptSet | None = None) -> None:
        from agiqa.stage1.mplug_owl2.loading import load_config
        from agiqa.stage1.mplug_owl2.processing import IMAGE_MARKER, load_tokenizer, tokenize

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
        from agiqa.stage1.mplug_owl2.processing import square

        return Sample({"pixel_values": square(image, self._image_size)[None]})

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples into float32 `(B, D)` or answers `(B, K)` for each wanted vector."""
        model = self._model = self._model or self._load()
        asked = sorted({index % len(self.texts) for index in wanted})
        with naming(self.folder.name), full_float32():
            made = model(batch(samples)["pixel_values"], asked)
        rows = []
        for index in wanted:
            answered, prompt = divmod(index, len(self.texts))
            row = made[:, asked.index(prompt)]
            rows.append(row[:, self.width :] if answered else row[:, : self.width])
        return rows

    def _load(self) -> "SemanticVectors":
        from agiqa.stage1.mplug_owl2.loading import load_model
        from agiqa.stage1.mplug_owl2.modeling import MplugOwl2Model, MplugOwl2WithHead
        from agiqa.stage1.mplug_owl2.vectors import SemanticVectors

        chosen, settings = self.prompt_set, self.settings
        network = MplugOwl2WithHead if chosen.answers else MplugOwl2Model
        model = load_model(self.folder.path, settings.dtype, settings.attention, network)
        words = self._words if chosen.answers else ()
        return SemanticVectors(model, self.texts, self.batch_size, words, chosen.answers_over)

    def _describe(self) -> tuple[Vector, ...]:
        from agiqa.stage1.mplug_owl2.processing import preprocessing

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
