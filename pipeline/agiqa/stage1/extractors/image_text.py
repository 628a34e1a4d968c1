"""Semantic vectors: an image-text model is asked each prompt about each image. Stage 1.

For any model behind transformers' AutoModelForImageTextToText. The vector is the last hidden state
after the final norm, pooled over positions, text and image (MA-AGIQA, arXiv:2404.17762: the mean);
`lmm.forward` says what is run once for all prompts.

Where the visual backbone is the model's own tower, and sees the image at the same size, the tower's
hidden states are there once the image is encoded for the prompts: pooled here, they are the visual
vectors to the bit, and its pass is saved (`SharedTower`). A close-up beside it has its own pass.
"""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from agiqa.core.memory import in_batches_that_fit
from agiqa.core.params import Semantic
from agiqa.data.prompts import LIKELIHOOD, WORDS, PromptSet, read_prompt_set
from agiqa.stage1.extractors.contract import (
    Extractor,
    Recipe,
    Sample,
    Vector,
    at_any_folder,
    running,
)
from agiqa.stage1.extractors.identity import (
    batch_size,
    device_name,
    fitting_size,
    libraries,
    note_too_many,
)
from agiqa.stage1.extractors.lmm.inputs import Texts, image_features
from agiqa.stage1.extractors.loading import find_model, load_config, load_processor, names_processor
from agiqa.stage1.extractors.remote_code import trust
from agiqa.stage1.extractors.vision import VisionExtractor
from agiqa.store import ANSWERS

if TYPE_CHECKING:
    from agiqa.stage1.extractors.lmm.model import LMM

log = logging.getLogger(__name__)

ADVICE = "or take semantic.dtype=bfloat16 or semantic.quantization; finished vectors are kept"
PIXELS = "pixel_values"  # as transformers' processors call them
PREPROCESSING = "preprocessing"  # in fingerprints
SAME = ("dtype", "attention", "precision")  # settings that have to agree


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
        trusted = trust(self.folder.path, settings)
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
        self._model: LMM | None = None
        self.when_encoded: Callable[[Any], object] | None = None  # takes the tower's states
        self.width = int(language.hidden_size)  # D
        identity = self.folder.identity(code=bool(trusted))
        self.vectors = self._describe(identity, self.folder.path if trusted else None)
        self._room = {"too_many_of": identity["sha256"], "dtype": settings.dtype}

    def recipe(self) -> Recipe:
        """Give the class and its arguments."""
        return Recipe(type(self), (at_any_folder(self.settings), self.prompt_set))

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """Process an RGB image, and its generation prompt, by the model's processor.

        Raises:
            RefusedError: the processor or the model does not take this image or its prompt.
        """
        budget = self.settings.pixel_budget or None
        arrays = image_features(self._processor, image, budget)
        sample = Sample(arrays, _key(arrays), image_prompt)
        blank = {}
        if self.prompt_set.answers_over == LIKELIHOOD:
            # Of the mean colour that the model's pixels are centred on.
            mean = getattr(self._processor.image_processor, "image_mean", None) or (0.5, 0.5, 0.5)
            red, green, blue = (round(255 * channel) for channel in mean)
            of_nothing = Image.new("RGB", image.size, (red, green, blue))
            blank = image_features(self._processor, of_nothing, budget)
        return replace(sample, texts=self._texts.own(sample), blank=blank)

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples of one key into float32 `(B, D)` a wanted vector; not always finite.

        Raises:
            FailedError: the model fails on these images, or the device's memory is too small for
                one of them.
            AgiqaError: the model cannot be loaded.
        """
        from agiqa.stage1.extractors.lmm.model import LMM

        if self._model is None:
            prints = [vector.fingerprint for vector in self.vectors]
            self._model = LMM(self.settings, self.folder, self._texts, prints)
        self._model.when_encoded = self.when_encoded
        key, weight = samples[0].key, sum(array.size for array in samples[0].arrays.values())
        room = self._room | {"device": device_name()}
        if key not in self._at_a_time:
            self._at_a_time[key] = fitting_size(self.batch_size, weight, room)

        def vectors(start: int, stop: int) -> list[np.ndarray]:
            with running(self.folder.name):
                return self._finite(samples[start:stop], wanted)

        def halved(size: int) -> None:
            note_too_many(self._at_a_time[key], weight, room)
            self._at_a_time[key] = size

        size = self._at_a_time[key]
        batches = in_batches_that_fit(len(samples), size, vectors, halved, ADVICE)
        return [np.concatenate(rows) for rows in zip(*batches, strict=True)]

    def _finite(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        plan = [self._plan[index] for index in wanted]
        needed = {name for name, _, _ in plan}
        asked = [name for name in self.prompt_set.prompts if name in needed]
        answered = {name for name, _, pooling in plan if pooling < 0}

        def computed(some: Sequence[Sample]) -> list[np.ndarray]:
            assert self._model is not None
            by_prompt = self._model(some, asked, answered)
            rows = []
            for name, layer, pooling in plan:
                pooled, answers = by_prompt[name]
                rows.append(np.array(answers if pooling < 0 else pooled[:, layer, pooling]))
            return rows

        assert self._model is not None
        rows = computed(samples)
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
                    for row, better in zip(rows, computed([samples[index]]), strict=True):
                        row[index] = better[0]
        return rows

    def _describe(self, identity: Mapping[str, str], code: Path | None) -> tuple[Vector, ...]:
        """Describe the vectors, and set `_plan`: the prompt, layer and pooling of each."""
        chosen, shared = self.prompt_set, self._shared_fields(identity, code)
        self._plan: list[tuple[str, int, int]] = []
        vectors = []
        layers = [*self.settings.layers, 0]  # 0: the normed output
        for name in chosen.prompts:
            prompt: dict[str, object] = {"text": chosen.prompts[name], "template": chosen.template}
            prompt |= {"order": chosen.order} if chosen.is_chat else {}
            prompt |= {"reply": chosen.reply} if chosen.reply else {}
            for depth, layer in enumerate(layers):
                for index, pooling in enumerate(chosen.poolings):
                    parts = [name] + ([f"layer{layer}"] if layer else [])
                    parts += [pooling] if len(chosen.poolings) > 1 else []
                    asked = prompt | {"pooling": pooling} | ({"layer": layer} if layer else {})
                    made_by, asks = shared | {"prompt": asked}, chosen.asks_image_prompt(name)
                    vectors.append(Vector(".".join(parts), made_by, self.width, "", asks))
                    self._plan.append((name, depth, index))
        for name in chosen.prompts if chosen.answers else ():
            asked = {"text": chosen.prompts[name], "template": chosen.template}
            asked |= {"order": chosen.order, "answers": list(chosen.answers)}
            asked |= {"reply": chosen.reply} if chosen.reply else {}
            asked |= {"over": chosen.answers_over} if chosen.answers_over != WORDS else {}
            made_by, asks = shared | {"prompt": asked}, chosen.asks_image_prompt(name)
            vectors.append(Vector(name, made_by, len(chosen.answers), ANSWERS, asks))
            self._plan.append((name, 0, -1))
        return tuple(vectors)

    def _shared_fields(self, identity: Mapping[str, str], code: Path | None) -> dict[str, object]:
        """Name what the fingerprints of all vectors have in common; `code`: Python that is run."""
        settings = self.settings
        is_quantised = settings.quantization != "none"
        fields: dict[str, object] = {
            "extractor": "lmm",
            "model": dict(identity),
            "preprocessing": self._processor.image_processor.to_dict() | {"backend": "pil"},
            "dtype": settings.dtype,
            "attention": settings.attention,
            "stored_as": self.precision,
            "libraries": libraries(
                self._config,
                settings.attention,
                quantised=is_quantised,
                tokenizer=self._processor.tokenizer,
                code=code,
            ),
        }
        if names_processor(self.folder):  # nano names none
            fields |= {"texts": "processor", "pixel_budget": settings.pixel_budget}
        if is_quantised:
            fields["quantization"] = settings.quantization
        if settings.compile:
            fields["compiled"] = True
        return fields


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


class SharedTower:
    """The vectors of a semantic extractor, then those of a visual one; wanted ones in this order.

    `shared_tower` makes it of two that look through the same tower.
    """

    def __init__(self, semantic: ImageTextExtractor, visual: VisionExtractor) -> None:
        self.semantic, self.visual = semantic, visual
        self.name = f"{semantic.name} and {visual.name}"
        self.batch_size, self.precision = semantic.batch_size, semantic.precision
        self.vectors = (*semantic.vectors, *visual.vectors)

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """Turn an RGB image into the semantic model's arrays, and `_NAME` of each further view."""
        sample = self.semantic.preprocess(image, image_prompt)
        further = self.visual.pixels(image, self.visual.views[1:])
        return replace(
            sample, arrays={**sample.arrays, **{f"_{name}": view for name, view in further.items()}}
        )

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples of one key into float32 `(B, D)` for each wanted vector."""
        count, depth = len(self.semantic.vectors), len(self.visual.settings.layers)
        semantic = [index for index in wanted if index < count]
        visual = [index - count for index in wanted if index >= count]
        whole = [index for index in visual if index < depth]
        further = [index for index in visual if index >= depth]
        encoded: list[Any] = []
        self.semantic.when_encoded = encoded.append if whole else None
        rows = self.semantic.extract(samples, semantic) if semantic else []
        rows += self._pooled(encoded, samples, whole) if whole else []
        if further:  # views that the semantic model does not see
            names = [view.name for view in self.visual.views[1:]]
            views = [{name: sample.arrays[f"_{name}"] for name in names} for sample in samples]
            rows += self.visual.extract([Sample(view) for view in views], further)
        return rows

    def recipe(self) -> Recipe:
        """Give the recipes of both extractors."""
        return Recipe(SharedTower, (self.semantic.recipe(), self.visual.recipe()))

    def _pooled(
        self, encoded: Sequence[Any], samples: Sequence[Sample], wanted: Sequence[int]
    ) -> list[np.ndarray]:
        """Pool what the tower has given of the samples, or else run it, to `(B, D)` a vector."""
        import torch

        hidden = [states for states in encoded if states]
        if sum(len(states[0]) for states in hidden) != len(samples):
            view = self.visual.views[0].name
            return self.visual.extract(
                [Sample({view: sample.arrays[PIXELS]}) for sample in samples], wanted
            )
        patches = (self.visual.views[0].side // self.visual.patch_size) ** 2
        layers = [self.visual.settings.layers[index] for index in wanted]
        with torch.inference_mode():
            pooled = [
                torch.cat([self.visual.pool(states[layer], patches) for states in hidden])
                for layer in layers
            ]
        return [rows.cpu().numpy() for rows in pooled]


def shared_tower(semantic: Extractor, visual: Extractor) -> SharedTower | None:
    """Join them where both see the same whole image by the same tower, in the same arithmetic.

    None: they do not.
    """
    if not isinstance(semantic, ImageTextExtractor) or not isinstance(visual, VisionExtractor):
        return None
    settings, other = semantic.settings, visual.settings
    same = (
        semantic.folder.path == visual.folder.path
        and all(getattr(settings, name) == getattr(other, name) for name in SAME)
        and semantic.batch_size == visual.batch_size
        and settings.dtype in ("float32", "int8")  # else vectors that overflow are computed again
        and settings.quantization == "none"
        and semantic.vectors[0].fingerprint[PREPROCESSING]
        == visual.vectors[0].fingerprint[PREPROCESSING]
    )
    return SharedTower(semantic, visual) if same else None
