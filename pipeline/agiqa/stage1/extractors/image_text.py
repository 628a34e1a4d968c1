"""Semantic vectors: an image-text model is asked each prompt about each image. Stage 1.

For any model behind transformers' AutoModelForImageTextToText. The vector is the last hidden state
after the final norm, pooled over positions, text and image (MA-AGIQA, arXiv:2404.17762: the mean);
`lmm.forward` says what is run once for all prompts.
"""

import logging
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.float32 import full_float32
from agiqa.core.memory import in_batches_that_fit
from agiqa.core.params import Semantic
from agiqa.data.prompts import LIKELIHOOD, WORDS, PromptSet, read_prompt_set
from agiqa.stage1.extractors.contract import Recipe, Sample, Vector, at_any_folder, batch
from agiqa.stage1.extractors.environment import libraries
from agiqa.stage1.extractors.failures import naming
from agiqa.stage1.extractors.lmm.inputs import image_features
from agiqa.stage1.extractors.lmm.texts import Texts
from agiqa.stage1.extractors.loading import ModelFolder, find_model, load_config, load_model, trust
from agiqa.stage1.extractors.model_memory import (
    batch_size,
    code_sha256,
    device_name,
    fitting_size,
    note_too_many,
    recall,
    remember,
)
from agiqa.stage1.extractors.processors import load_processor, names_processor
from agiqa.stage1.extractors.vision import PARTS
from agiqa.store import ANSWERS

if TYPE_CHECKING:
    from agiqa.stage1.extractors.lmm.forward import Tokens
    from agiqa.stage1.extractors.lmm.pooling import Vectors

CODE_OF_SHARING = [
    f"stage1/extractors/{name}.py"
    for name in ("image_text", "lmm/forward", "lmm/pooling", "lmm/inputs", "lmm/texts")
]
PROOF = 2  # images that prove what prompts can share, several times over

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
        import torch

        if self._model is None:
            prints = [vector.fingerprint for vector in self.vectors]
            self._model = _Model(self.settings, self.folder, self._texts, prints)
        self._model.when_encoded = self.when_encoded
        key, weight = samples[0].key, sum(array.size for array in samples[0].arrays.values())
        room = self._room | {"device": device_name()}
        if key not in self._at_a_time:
            self._at_a_time[key] = fitting_size(self.batch_size, weight, room)

        def vectors(start: int, stop: int) -> list[np.ndarray]:
            with torch.inference_mode(), naming(self.folder.name), full_float32():
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


class _Model:
    """The loaded model: samples and prompts to pooled states and answers' probabilities."""

    def __init__(
        self,
        settings: Semantic,
        folder: ModelFolder,
        texts: Texts,
        fingerprints: Sequence[Mapping[str, object]],
    ) -> None:
        import torch
        import transformers

        from agiqa.stage1.extractors.int8 import arithmetic
        from agiqa.stage1.extractors.lmm.answers import Answers
        from agiqa.stage1.extractors.lmm.forward import SharedForward, decoder_blocks

        self.prompt_set, self.texts = texts.prompt_set, texts
        self.made_by = {"vectors": fingerprints, "device_map": settings.device_map}
        auto = transformers.AutoModelForImageTextToText
        self.model = load_model(auto, folder, settings.dtype, settings.attention, settings)
        if not hasattr(self.model, "get_image_features"):
            raise AgiqaError(
                f"Model '{folder.name}' ({type(self.model).__name__}) has no separate vision "
                "tower, which the semantic extractor needs: use another model."
            )
        self.answers = Answers(self.model, texts)
        self.forward = SharedForward(self.model, self.prompt_set.poolings, settings.layers)
        if settings.compile:
            for block in decoder_blocks(self.model):
                block.compile(dynamic=False)
        self.dtype = arithmetic(settings.dtype)
        self.when_encoded: Callable[[Any], object] | None = None
        self._proven: set[str] = set()  # prompts of which is known what they share
        self.can_widen = self.dtype != torch.float32 and settings.quantization == "none"

    def __call__(
        self, samples: Sequence[Sample], names: Sequence[str], answered: Collection[str]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Compute by prompt states `(B, layers, K, D)`; of those `answered` answers `(B, A)`."""
        over = self.prompt_set.answers_over
        scored = answered if over == LIKELIHOOD else ()
        if not self._proven.issuperset(names):
            self._prove(samples[:PROOF], names, scored)
        prompts = {name: self._tokens(name, samples, name in scored) for name in names}
        vectors = self._read(samples, prompts)
        if over == LIKELIHOOD:
            answers = self._likelihoods(samples, {n: prompts[n] for n in answered}, vectors)
        else:
            answers = {n: self.answers.words(n, samples, vectors[n].last) for n in answered}
        nothing = np.zeros((len(samples), 0), dtype=np.float32)
        return {
            name: (vectors[name].pooled.cpu().numpy(), answers.get(name, nothing)) for name in names
        }

    def _prove(
        self, samples: Sequence[Sample], names: Sequence[str], scored: Collection[str]
    ) -> None:
        """Find out what these prompts can share, on a few images; once on this machine.

        A finding is kept by all that it could depend on, but for the pixels; prompts that each
        image has of its own are proven anew.
        """
        from agiqa.stage1.extractors.lmm.forward import LEVELS

        cause: dict[str, object] | None = None
        if not samples[0].texts:
            cause = {
                **self.made_by,
                "prompts": [[name, name in scored] for name in names],
                "images": len(samples),
                "shape": repr(samples[0].key),
                "device": device_name(),
                "code": code_sha256(*CODE_OF_SHARING),
            }
        known = recall(cause)
        if type(known) is int and known in range(len(LEVELS)):
            self.forward.shares = LEVELS[known]
            self._proven.update(names)
            return
        encoded = self.forward.encode(self._on_device(batch(samples)), len(samples))
        prompts = [self._tokens(name, samples, name in scored) for name in names]
        self.forward.shares = self.forward.prove(encoded, prompts)
        self._proven.update(names)
        remember(cause, LEVELS.index(self.forward.shares))

    def _read(
        self, samples: Sequence[Sample], prompts: Mapping[str, "Tokens"]
    ) -> dict[str, "Vectors"]:
        with self._tower_watched():
            encoded = self.forward.encode(self._on_device(batch(samples)), len(samples))
        return dict(zip(prompts, self.forward(encoded, list(prompts.values())), strict=True))

    def _likelihoods(
        self,
        samples: Sequence[Sample],
        prompts: Mapping[str, "Tokens"],
        vectors: Mapping[str, "Vectors"],
    ) -> dict[str, np.ndarray]:
        """Compute LIKELIHOODS `(B, 2)` of the images' own prompts; none where none is wanted."""
        if not prompts:
            return {}
        blank = self._read([Sample(sample.blank) for sample in samples], prompts)
        answers = {}
        for name, tokens in prompts.items():
            own, without = (
                self.answers.likelihood(tokens, read[name]) for read in (vectors, blank)
            )
            answers[name] = np.stack([own, own - without], axis=1)
        return answers

    @contextmanager
    def _tower_watched(self) -> Iterator[None]:
        """Hand the hidden states of all the tower's blocks to `when_encoded` while it lasts."""
        note, whole = self.when_encoded, self.model.model
        tower = next((getattr(whole, name) for name in PARTS if hasattr(whole, name)), None)
        if note is None or tower is None:
            yield
            return

        def ask(_module: Any, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return inputs, named | {"output_hidden_states": True}  # or only the model's own one

        def hand_over(_module: Any, _inputs: Any, output: Any) -> None:
            note(getattr(output, "hidden_states", None))

        hooks = [
            tower.register_forward_pre_hook(ask, with_kwargs=True),
            tower.register_forward_hook(hand_over),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

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

    def _tokens(self, name: str, samples: Sequence[Sample], scored: bool) -> "Tokens":
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
            [self.texts.own_start(name, sample) for sample in samples] if scored else None,
        )


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
