"""The loaded image-text model: samples and prompts to pooled states and answers' probabilities.

What prompts can share is proven here on a few images, once on a machine; `forward` runs it.
Answers come from the last hidden states: of words, the probabilities of what may follow the text
(Q-Align, arXiv:2312.17090, among the words; VQAScore, arXiv:2404.01291, among all tokens); of the
image's own prompt, its mean log-likelihood, nats a token.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic
from agiqa.data.prompts import LIKELIHOOD, VOCABULARY
from agiqa.stage1.extractors.contract import Sample, batch
from agiqa.stage1.extractors.identity import ModelFolder, code_sha256, device_name, recall, remember
from agiqa.stage1.extractors.int8 import arithmetic
from agiqa.stage1.extractors.lmm.forward import (
    LEVELS,
    SharedForward,
    Tokens,
    Vectors,
    decoder_blocks,
)
from agiqa.stage1.extractors.lmm.inputs import Texts
from agiqa.stage1.extractors.loading import load_model
from agiqa.stage1.extractors.vision import PARTS

CODE_OF_SHARING = [f"stage1/extractors/lmm/{name}.py" for name in ("model", "forward", "inputs")]
PROOF = 2  # images that prove what prompts can share, several times over


class LMM:
    """A model on its device, with the texts that it is asked."""

    def __init__(
        self,
        settings: Semantic,
        folder: ModelFolder,
        texts: Texts,
        fingerprints: Sequence[Mapping[str, object]],
    ) -> None:
        self.prompt_set, self.texts = texts.prompt_set, texts
        self.made_by = {"vectors": fingerprints, "device_map": settings.device_map}
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
            answers = {n: self._words(n, samples, vectors[n].last) for n in answered}
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

    def _read(self, samples: Sequence[Sample], prompts: Mapping[str, Tokens]) -> dict[str, Vectors]:
        with self._tower_watched():
            encoded = self.forward.encode(self._on_device(batch(samples)), len(samples))
        return dict(zip(prompts, self.forward(encoded, list(prompts.values())), strict=True))

    def _words(self, name: str, samples: Sequence[Sample], last: Tensor) -> np.ndarray:
        """Compute the answers' probabilities `(B, A)` from the last position's states `(B, D)`."""
        chosen = self.prompt_set
        tokens = [self.texts.answers(name, chosen.answers, sample) for sample in samples]
        logits = self._logits(last)
        ids = torch.tensor(tokens, device=logits.device)
        if chosen.answers_over == VOCABULARY:
            probabilities = logits.softmax(dim=1).gather(1, ids)
        else:
            probabilities = logits.gather(1, ids).softmax(dim=1)
        return np.asarray(probabilities.cpu().numpy())

    def _likelihoods(
        self,
        samples: Sequence[Sample],
        prompts: Mapping[str, Tokens],
        vectors: Mapping[str, Vectors],
    ) -> dict[str, np.ndarray]:
        """Compute LIKELIHOODS `(B, 2)` of the images' own prompts; none where none is wanted."""
        if not prompts:
            return {}
        blank = self._read([Sample(sample.blank) for sample in samples], prompts)
        answers = {}
        for name, tokens in prompts.items():
            own, without = (self._likelihood(tokens, read[name]) for read in (vectors, blank))
            answers[name] = np.stack([own, own - without], axis=1)
        return answers

    def _likelihood(self, tokens: Tokens, states: Vectors) -> np.ndarray:
        """Compute the mean log-likelihood `(B,)` of the images' own prompts, in nats a token.

        Row by row: all tokens of the vocabulary at every position of a batch would be gigabytes.
        """
        assert tokens.own_starts is not None
        assert states.outputs is not None
        means = []
        for row, start in enumerate(tokens.own_starts):
            stop = int(tokens.lengths[row])
            logits = self._logits(states.outputs[row, start - 1 : stop - 1])
            ids = tokens.ids[row, start:stop, None].to(logits.device)
            means.append(logits.log_softmax(dim=1).gather(1, ids).mean())
        return np.asarray(torch.stack(means).cpu().numpy())

    def _logits(self, states: Tensor) -> Tensor:
        """Score the vocabulary `(N, V)`, float32, behind states `(N, D)`."""
        head = self.model.get_output_embeddings()
        logits: Tensor = head(states.to(head.weight.device)).float()
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

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
        device = self.model.device
        tensors = {}
        for name, array in arrays.items():
            tensor = torch.from_numpy(array)
            if device.type == "cuda":
                tensor = tensor.pin_memory()
            kind = self.dtype if tensor.is_floating_point() else tensor.dtype
            tensors[name] = tensor.to(device, non_blocking=True).to(kind)
        return tensors

    def _tokens(self, name: str, samples: Sequence[Sample], scored: bool) -> Tokens:
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
