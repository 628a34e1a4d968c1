"""Answers of an image-text model, from its last hidden states: words, or the image's own prompt.

Words: the probabilities of what may follow the text (Q-Align, arXiv:2312.17090, among the words;
VQAScore, arXiv:2404.01291, among all tokens). The prompt: its mean log-likelihood, nats a token.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from agiqa.data.prompts import VOCABULARY
from agiqa.stage1.extractors.contract import Sample
from agiqa.stage1.extractors.lmm.pooling import Vectors
from agiqa.stage1.extractors.lmm.texts import Texts

if TYPE_CHECKING:
    from agiqa.stage1.extractors.lmm.forward import Tokens


class Answers:
    """The head of one model, and the prompt set's answers."""

    def __init__(self, model: Any, texts: Texts) -> None:
        self.model, self.texts = model, texts

    def words(self, name: str, samples: Sequence[Sample], last: Tensor) -> np.ndarray:
        """Compute the answers' probabilities `(B, A)` from the last position's states `(B, D)`."""
        chosen = self.texts.prompt_set
        tokens = [self.texts.answers(name, chosen.answers, sample) for sample in samples]
        logits = self._logits(last)
        ids = torch.tensor(tokens, device=logits.device)
        if chosen.answers_over == VOCABULARY:
            return np.asarray(logits.softmax(dim=1).gather(1, ids).cpu().numpy())
        return np.asarray(logits.gather(1, ids).softmax(dim=1).cpu().numpy())

    def likelihood(self, tokens: "Tokens", states: Vectors) -> np.ndarray:
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
