"""Semantic vectors: an image-text model answers each prompt about each image. Stage 1.

The vision tower and projector run once an image, whatever the number of prompts; each prompt is
one pass of the language model without its head. The vector is the last hidden state after the
final norm, averaged over all positions, text and image (MA-AGIQA, arXiv:2404.17762).
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from agiqa.params import Semantic
from agiqa.prompts import PromptSet, read_prompt_set

PROVEN = ("aya_vision", "llava")  # compared with the plain forward by the tests


@dataclass(frozen=True)
class LMM:
    """A loaded image-text model with its tokenizer and image processor."""

    model: Any
    tokenizer: Any
    image_processor: Any

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return int(self.model.config.get_text_config().hidden_size)

    def visual_tokens(self, pixels: Any) -> Any:
        """Pixels `(B, 3, H, W)` to projected visual tokens `(B, T, D)`."""
        import torch

        tokens = self.model.get_image_features(pixel_values=pixels).pooler_output
        return tokens if torch.is_tensor(tokens) else torch.stack(list(tokens))  # LLaVA: a list

    def embed(self, before: str, visual: Any, after: str) -> Any:
        """Text, image, text as input embeddings `(B, L, D)`; each side tokenised on its own."""
        return self._join(self._ids(before, start=True), visual, self._ids(after, start=False))

    def hidden_states(self, embeddings: Any) -> Any:
        """Last hidden state after the final norm, `(B, L, D)`; no head, no other layer."""
        language = self.model.model.language_model
        return language(inputs_embeds=embeddings, use_cache=False).last_hidden_state

    def _ids(self, text: str, start: bool) -> Any:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        opening = self.tokenizer("")["input_ids"][:1] if start else []  # where texts start with BOS
        return (opening if opening == [self.tokenizer.bos_token_id] else []) + ids

    def _join(self, before: list[int], visual: Any, after: list[int]) -> Any:
        import torch

        table = self.model.get_input_embeddings()
        batch = visual.shape[0]
        sides = [
            table(torch.tensor(ids, dtype=torch.long, device=visual.device)).expand(batch, -1, -1)
            for ids in (before, after)
        ]
        return torch.cat([sides[0], visual.to(sides[0].dtype), sides[1]], dim=1)


def load_lmm(settings: Semantic) -> LMM:
    """Load the model that `settings.model` names.

    Raises:
        AgiqaError: not found, not an image-text model, or without the parts this extractor needs.
    """
    import transformers

    folder = find_model(settings.model)
    model = load_model(
        transformers.AutoModelForImageTextToText, folder, settings.dtype, settings.attention
    )
    if not hasattr(model, "get_image_features") or not hasattr(model.model, "language_model"):
        raise AgiqaError(
            f"Model '{folder.name}' ({type(model).__name__}) has no separate vision tower and "
            "language model, which the semantic extractor needs."
        )
    if model.config.model_type not in PROVEN:
        raise AgiqaError(
            f"Model '{folder.name}' is a {model.config.model_type}, whose vectors are not proven "
            f"right here yet; use one of {', '.join(PROVEN)}."
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder.path)
    return LMM(model, tokenizer, load_image_processor(folder))


class LMMExtractor:
    """One vector for each prompt of a prompt set. Weights load on first use."""

    def __init__(self, settings: Semantic) -> None:
        self.settings = settings
        self.prompt_set: PromptSet = read_prompt_set(settings.prompts)
        self.folder = find_model(settings.model)
        self.name = settings.name
        self.batch_size = settings.batch_size
        self.precision = settings.precision
        self._processor = load_image_processor(self.folder)
        self._lmm: LMM | None = None
        self.vectors = self._describe()

    @property
    def width(self) -> int:
        """D, the language model's hidden size."""
        from transformers import AutoConfig

        return int(AutoConfig.from_pretrained(self.folder.path).get_text_config().hidden_size)

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> np.ndarray:
        """RGB image to float32 pixels `(3, H, W)`."""
        return preprocess(self._processor, image)

    def extract(self, pixels: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
        """Pixels `(B, 3, H, W)` to float32 `(B, len(wanted), D)`."""
        import torch

        if self._lmm is None:
            self._lmm = load_lmm(self.settings)
        lmm, model = self._lmm, self._lmm.model
        names = list(self.prompt_set.prompts)
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(model.device, model.dtype)
            visual = lmm.visual_tokens(batch)
            means = []
            for index in wanted:
                before, after = self.prompt_set.text(names[index])
                states = lmm.hidden_states(lmm.embed(before, visual, after))
                means.append(states.float().mean(dim=1))  # pooled in float32, cast last
            return torch.stack(means, dim=1).cpu().numpy()

    def _describe(self) -> tuple[Vector, ...]:
        shared = {
            "extractor": "lmm",
            "model": self.folder.identity(),
            "preprocessing": self._processor.to_dict() | {"backend": "pil"},
            "dtype": self.settings.dtype,
            "attention": self.settings.attention,
            "stored_as": self.precision,
            "libraries": versions(),
        }
        chosen = self.prompt_set
        return tuple(
            Vector(
                name,
                shared
                | {
                    "prompt": {
                        "text": chosen.prompts[name],
                        "template": chosen.template,
                        "pooling": chosen.poolings[0],
                    }
                },
                asks_image_prompt=chosen.asks_image_prompt(name),
            )
            for name in chosen.prompts
        )
