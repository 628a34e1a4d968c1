"""Image vectors of CLIP and SigLIP, and how like each prompt's text an image is. Stage 1.

Not an LMM: no prompt changes the vector. It is the baseline that an LMM has to beat.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic
from agiqa.data.prompts import PromptSet, read_prompt_set
from agiqa.stage1.extractors.contract import (
    Recipe,
    Sample,
    Vector,
    at_any_folder,
    batch,
    refused,
    require_known,
    running,
)
from agiqa.stage1.extractors.identity import batch_size, libraries
from agiqa.stage1.extractors.loading import (
    find_model,
    load_config,
    load_image_processor,
    load_model,
    load_part,
)
from agiqa.store import ANSWERS

log = logging.getLogger(__name__)

IMAGE, SIMILARITIES = "image", "similarities"


class DualEncoderExtractor:
    """One vector an image, of unit length; beside it its cosines with the prompts.

    Weights load on first use.

    Raises:
        AgiqaError: the folder has no image processor or tokenizer, a prompt becomes a token that
            the model does not have, or the prompts ask for the image's own.
    """

    def __init__(self, settings: Semantic, prompt_set: PromptSet | None = None) -> None:
        self.settings = settings
        self.prompt_set = prompt_set or read_prompt_set(settings.prompts)
        if any(self.prompt_set.asks_image_prompt(name) for name in self.prompt_set.prompts):
            raise AgiqaError(
                f"Prompt set '{self.prompt_set.name}' holds {{image_prompt}}, which a dual encoder "
                "cannot be asked: use another set, or an image-text model."
            )
        self.folder = find_model(settings.model, settings.revision)
        self.name = settings.name
        self.batch_size = batch_size(settings.batch_size)
        self.precision = settings.precision
        config = load_config(self.folder)
        projected = getattr(config, "projection_dim", None) if config.model_type == "clip" else None
        self.width = int(projected or config.vision_config.hidden_size)
        self._processor = load_image_processor(self.folder)
        self._tokenizer = load_part(self.folder, "tokenizer")
        self._inputs = self._tokenise(config.text_config)
        self._model: Any = None
        self._texts: Any = None  # (P, D), of unit length
        self.vectors = self._describe(config)

    def recipe(self) -> Recipe:
        """Give the class and its arguments."""
        return Recipe(type(self), (at_any_folder(self.settings), self.prompt_set))

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """Turn an RGB image into pixels, for SigLIP 2 NaFlex with their shape."""
        try:
            return Sample(dict(self._processor(images=image, return_tensors="np")))
        except Exception as error:  # of whatever the processor raises
            raise refused(self._processor, image, error) from error

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples into float32 `(B, D)` or `(B, P)` for each wanted vector."""
        import torch
        import transformers

        with running(self.folder.name):
            if self._model is None:
                kind, settings = transformers.AutoModel, self.settings
                self._model = load_model(
                    kind, self.folder, settings.dtype, settings.attention, settings
                )
                inputs = self._inputs.to(self._model.device)
                self._texts = _unit(self._model.get_text_features(**inputs))
            arrays = {n: torch.from_numpy(a) for n, a in batch(samples).items()}
            arrays = {n: a.to(self._model.device) for n, a in arrays.items()}
            arrays["pixel_values"] = arrays["pixel_values"].to(self._model.dtype)
            images = _unit(self._model.get_image_features(**arrays))
            vectors = [images, images @ self._texts.T]
        return [vectors[index].cpu().numpy() for index in wanted]

    def _tokenise(self, config: Any) -> Any:
        """Tokenise the prompts `(P, L)`, L the model's; warn of prompts that are cut."""
        length = int(config.max_position_embeddings)
        for name, text in self.prompt_set.prompts.items():
            tokens = len(self._tokenizer(text, verbose=False)["input_ids"])
            if tokens > length:
                log.warning(
                    "prompt '%s' is %d tokens long, of which '%s' reads the first %d",
                    *(name, tokens, self.folder.name, length),
                )
        inputs = self._tokenizer(
            list(self.prompt_set.prompts.values()),
            padding="max_length",  # as SigLIP was trained; CLIP masks it
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        require_known(inputs["input_ids"].flatten().tolist(), config.vocab_size, self.folder.name)
        return inputs

    def _describe(self, config: Any) -> tuple[Vector, ...]:
        settings = self.settings
        quantised = settings.quantization != "none"
        asked = libraries(
            config, settings.attention, quantised=quantised, tokenizer=self._tokenizer
        )
        shared: dict[str, object] = {
            "extractor": "dual_encoder",
            "model": self.folder.identity(),
            "preprocessing": self._processor.to_dict() | {"backend": "pil"},
            "dtype": settings.dtype,
            "attention": settings.attention,
            "stored_as": self.precision,
            "libraries": libraries(config, settings.attention, quantised=quantised),
        }
        texts = list(self.prompt_set.prompts.values())
        compared = shared | {"libraries": asked, "prompts": texts}
        return (
            Vector(IMAGE, shared, self.width),
            Vector(SIMILARITIES, compared, len(texts), ANSWERS),
        )


def _unit(output: Any) -> Any:
    """Scale features `(N, D)` to unit length, in float32."""
    features = getattr(output, "pooler_output", output).float()
    return features / features.norm(dim=-1, keepdim=True)
