"""Semantic vectors: an image-text model is asked each prompt about each image. Stage 1.

For any model behind transformers' AutoModelForImageTextToText. The vector is the last hidden state
after the final norm, pooled over positions, text and image (MA-AGIQA, arXiv:2404.17762: the mean);
`lmm.forward` says what is run once for all prompts.
"""

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.float32 import full_float32
from agiqa.core.memory import in_batches_that_fit
from agiqa.core.params import Semantic
from agiqa.data.prompts import PromptSet, read_prompt_set
from agiqa.stage1.extractors.batch_size import Remembered, batch_size
from agiqa.stage1.extractors.contract import ANSWERS, Sample, Vector, batch
from agiqa.stage1.extractors.environment import libraries
from agiqa.stage1.extractors.failures import naming
from agiqa.stage1.extractors.lmm.inputs import image_features
from agiqa.stage1.extractors.lmm.texts import Texts
from agiqa.stage1.extractors.loading import ModelFolder, find_model, load_config, load_model, trust
from agiqa.stage1.extractors.processors import load_processor, names_processor

log = logging.getLogger(__name__)

ADVICE = "or take semantic.dtype=bfloat16 or semantic.quantization; finished vectors are kept"


class ImageTextExtractor:
    """One vector for each prompt, pooling and layer; answers' probabilities beside them.

    Weights load on first use. A vector that is not finite in float16 or bfloat16 is computed again
    in float32.

    Raises:
        AgiqaError: the folder's configuration, tokenizer or processor is absent or cannot be used.
    """

    def __init__(self, settings: Semantic, prompt_set: PromptSet | None = None) -> None:
        self.settings = settings
        self.prompt_set: PromptSet = prompt_set or read_prompt_set(settings.prompts)
        self.folder = find_model(settings.model, settings.revision)
        self.name = settings.name
        self.batch_size = batch_size(settings.batch_size)
        self.precision = settings.precision
        trusted = trust(self.folder, settings)
        self._config = load_config(self.folder, **trusted)
        self._processor = load_processor(self.folder, **trusted)
        language = self._config.get_text_config()
        self._texts = Texts(
            self.prompt_set,
            self._processor,
            self.folder.name,
            int(language.vocab_size),
            int(getattr(language, "max_position_embeddings", None) or 0),
        )
        self._at_a_time: dict[Hashable, int] = {}  # images, by what those of a batch share
        self._model: _Model | None = None
        self._names = list(self.prompt_set.prompts)
        identity = self.folder.identity(code=bool(trusted))
        made_with = libraries(
            self._config,
            settings.attention,
            quantised=settings.quantization != "none",
            tokenizer=self._processor.tokenizer,
            code=self.folder.path if trusted else None,
        )
        self.vectors = self._describe(identity, made_with)
        self._room = Remembered(identity["sha256"], settings.dtype)

    @property
    def width(self) -> int:
        """D, the language model's hidden size."""
        return int(self._config.get_text_config().hidden_size)

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """Process an RGB image, and its generation prompt, by the model's processor.

        Raises:
            RefusedError: the processor or the model does not take this image or its prompt.
        """
        budget = self.settings.pixel_budget or None
        arrays = image_features(self._processor, image, budget)
        sample = Sample(arrays, _key(arrays), image_prompt)
        return replace(sample, texts=self._texts.own(sample))

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples of one key into float32 `(B, D)` a wanted vector; not always finite.

        Raises:
            FailedError: the model fails on these images, or the device's memory is too small for
                one of them.
            AgiqaError: the model cannot be loaded.
        """
        import torch

        if self._model is None:
            self._model = _Model(self.settings, self.folder, self._texts)
        key, weight = samples[0].key, sum(array.size for array in samples[0].arrays.values())
        if key not in self._at_a_time:
            self._at_a_time[key] = self._room.least(self.batch_size, weight)

        def vectors(start: int, stop: int) -> list[np.ndarray]:
            with torch.inference_mode(), naming(self.folder.name), full_float32():
                return self._finite(samples[start:stop], wanted)

        def halved(size: int) -> None:
            self._room.note(self._at_a_time[key], weight)
            self._at_a_time[key] = size

        size = self._at_a_time[key]
        batches = in_batches_that_fit(len(samples), size, vectors, halved, ADVICE)
        return [np.concatenate(rows) for rows in zip(*batches, strict=True)]

    def _finite(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        assert self._model is not None
        rows = self._pick(self._model(samples, self._asked(wanted)), wanted)
        lost = ~np.all([np.isfinite(row).all(axis=1) for row in rows], axis=0)
        if lost.any() and self._model.can_widen:
            log.warning(
                "%d of %d images: vectors overflowed in %s and are computed again in float32",
                lost.sum(),
                len(samples),
                self.settings.dtype,
            )
            with self._model.widened():
                for index in np.flatnonzero(lost).tolist():
                    recomputed = self._model([samples[index]], self._asked(wanted))
                    for row, better in zip(rows, self._pick(recomputed, wanted), strict=True):
                        row[index] = better[0]
        return rows

    def _asked(self, wanted: Sequence[int]) -> list[str]:
        """List the prompts that the wanted vectors need."""
        asked = {self._plan[index][0] for index in wanted}
        return [name for name in self._names if name in asked]

    def _pick(
        self, by_prompt: Mapping[str, tuple[np.ndarray, np.ndarray]], wanted: Sequence[int]
    ) -> list[np.ndarray]:
        """Pick the wanted vectors out of what the model said to the prompts."""
        rows = []
        for index in wanted:
            name, layer, pooling = self._plan[index]
            pooled, answers = by_prompt[name]
            rows.append(answers if pooling < 0 else pooled[:, layer, pooling])
        return [np.array(row) for row in rows]

    def _describe(
        self, identity: Mapping[str, str], made_with: Mapping[str, str]
    ) -> tuple[Vector, ...]:
        """Describe the vectors, and set `_plan`: the prompt, layer and pooling of each."""
        settings, chosen = self.settings, self.prompt_set
        shared: dict[str, object] = {
            "extractor": "lmm",
            "model": dict(identity),
            "preprocessing": self._processor.image_processor.to_dict() | {"backend": "pil"},
            "dtype": settings.dtype,
            "attention": settings.attention,
            "stored_as": self.precision,
            "libraries": dict(made_with),
        }
        if names_processor(self.folder):  # nano names none
            shared |= {"texts": "processor", "pixel_budget": settings.pixel_budget}
        if settings.quantization != "none":
            shared["quantization"] = settings.quantization
        if settings.compile:
            shared["compiled"] = True
        self._plan: list[tuple[str, int, int]] = []
        vectors = []
        layers = [*settings.layers, 0]  # 0: the normed output
        for name in chosen.prompts:
            prompt: dict[str, object] = {"text": chosen.prompts[name], "template": chosen.template}
            prompt |= {"order": chosen.order} if chosen.is_chat else {}
            for depth, layer in enumerate(layers):
                for index, pooling in enumerate(chosen.poolings):
                    parts = [name] + ([f"layer{layer}"] if layer else [])
                    parts += [pooling] if len(chosen.poolings) > 1 else []
                    asked = prompt | {"pooling": pooling} | ({"layer": layer} if layer else {})
                    vectors.append(self._vector(name, ".".join(parts), shared, asked, self.width))
                    self._plan.append((name, depth, index))
        for name in chosen.prompts if chosen.answers else ():
            asked = {"text": chosen.prompts[name], "template": chosen.template}
            asked |= {"order": chosen.order, "answers": list(chosen.answers)}
            vectors.append(self._vector(name, name, shared, asked, len(chosen.answers), ANSWERS))
            self._plan.append((name, 0, -1))
        return tuple(vectors)

    def _vector(
        self,
        asked: str,
        name: str,
        shared: Mapping[str, object],
        prompt: Mapping[str, object],
        width: int,
        store: str = "",
    ) -> Vector:
        asks = self.prompt_set.asks_image_prompt(asked)
        return Vector(name, {**shared, "prompt": prompt}, width, store, asks)


class _Model:
    """The loaded model: samples and prompts to pooled states and answers' probabilities."""

    def __init__(self, settings: Semantic, folder: ModelFolder, texts: Texts) -> None:
        import torch
        import transformers

        from agiqa.stage1.extractors.lmm.forward import SharedForward, decoder_blocks

        self.prompt_set, self.texts = texts.prompt_set, texts
        auto = transformers.AutoModelForImageTextToText
        self.model = load_model(auto, folder, settings.dtype, settings.attention, settings)
        if not hasattr(self.model, "get_image_features"):
            raise AgiqaError(
                f"Model '{folder.name}' ({type(self.model).__name__}) has no separate vision "
                "tower, which the semantic extractor needs: use another model."
            )
        self.forward = SharedForward(self.model, self.prompt_set.poolings, settings.layers)
        if settings.compile:
            for block in decoder_blocks(self.model):
                block.compile(dynamic=False)
        self.dtype = getattr(torch, settings.dtype)
        self.can_widen = self.dtype != torch.float32 and settings.quantization == "none"

    def __call__(
        self, samples: Sequence[Sample], names: Sequence[str]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Compute by prompt states `(B, layers, K, D)` and answers' probabilities `(B, A)`."""
        prompts = [self._tokens(name, samples) for name in names]
        arrays = self._on_device(batch(samples))
        encoded = self.forward.encode(arrays, len(samples))
        vectors = self.forward(encoded, prompts)
        return {
            name: (states.pooled.cpu().numpy(), self._answers(name, samples, states.last))
            for name, states in zip(names, vectors, strict=True)
        }

    @contextmanager
    def widened(self) -> Iterator[None]:
        """Hold the model in float32 while it lasts; casting back gives the same weights."""
        import torch

        kept = self.dtype
        self._cast(torch.float32)
        try:
            yield
        finally:
            self._cast(kept)

    def _cast(self, dtype: Any) -> None:
        self.model.to(dtype)
        self.dtype = dtype
        self.forward.forget()

    def _on_device(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Put arrays on the model's device, through pinned memory; floats in its type."""
        import torch

        device = self.model.device
        tensors = {}
        for name, array in arrays.items():
            tensor = torch.from_numpy(array)
            if device.type == "cuda":
                tensor = tensor.pin_memory()
            kind = self.dtype if tensor.is_floating_point() else tensor.dtype
            tensors[name] = tensor.to(device, non_blocking=True).to(kind)
        return tensors

    def _tokens(self, name: str, samples: Sequence[Sample]) -> Any:
        import torch

        from agiqa.stage1.extractors.lmm.forward import Tokens

        rows = [self.texts.tokens(name, sample) for sample in samples]
        lengths = [len(row["input_ids"]) for row in rows]
        arrays = {
            key: np.stack([np.pad(row[key], (0, max(lengths) - len(row[key]))) for row in rows])
            for key in rows[0]
        }
        device = self.model.get_input_embeddings().weight.device
        return Tokens(
            {key: torch.from_numpy(array).long().to(device) for key, array in arrays.items()},
            torch.tensor(lengths, device=device),
        )

    def _answers(self, name: str, samples: Sequence[Sample], last: Any) -> np.ndarray:
        """Compute the answers' probabilities `(B, A)` from the last position's states `(B, D)`."""
        import torch

        words = self.prompt_set.answers
        if not words:
            return np.zeros((len(samples), 0), dtype=np.float32)
        head = self.model.get_output_embeddings()
        tokens = [self.texts.answers(name, words, sample) for sample in samples]
        logits = head(last.to(head.weight.device)).float()
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        logits = torch.tanh(logits / cap) * cap if cap else logits
        chosen = logits.gather(1, torch.tensor(tokens, device=logits.device))
        return np.asarray(chosen.softmax(dim=1).cpu().numpy())


def _key(arrays: Mapping[str, np.ndarray]) -> object:
    """Make the key that images of a batch share: shapes, and small arrays of numbers."""
    return tuple(
        (
            name,
            array.shape,
            array.tobytes() if array.dtype.kind in "iu" and array.size <= 16 else b"",
        )
        for name, array in sorted(arrays.items())
    )
