"""Prompts as tokens around an image, by the model's own processor.

It knows how many tokens an image of some size becomes, and what stands around them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agiqa.errors import AgiqaError
from agiqa.extractors.contract import Sample
from agiqa.extractors.lmm.inputs import chat_text, placeholder, token_ids
from agiqa.prompts import PromptSet


@dataclass(eq=False)
class Texts:
    """The text as the processor has it: the model's chat template, or the prompt set's own."""

    prompt_set: PromptSet
    processor: Any
    _found: dict[tuple[str, object, str | None], Mapping[str, np.ndarray]] = field(
        default_factory=dict
    )

    def tokens(self, name: str, sample: Sample) -> Mapping[str, np.ndarray]:
        """Tokens for the image's size; those of one size are made once."""
        asks = self.prompt_set.asks_image_prompt(name)
        key = (name, sample.key, sample.image_prompt if asks else None)
        if key not in self._found:
            text = self.text(name, sample.image_prompt)
            self._found[key] = token_ids(self.processor, sample.arrays, text)
        return self._found[key]

    def answers(self, name: str, words: Sequence[str], sample: Sample) -> list[int]:
        """The token after the text, answer by answer."""
        text = self.text(name, sample.image_prompt)
        tail = text.rpartition(placeholder(self.processor))[2]
        ask = self.processor.tokenizer
        return first_tokens(
            lambda t: list(ask(t, add_special_tokens=False)["input_ids"]), tail, words
        )

    def text(self, name: str, image_prompt: str | None) -> str:
        """What the processor is given."""
        chosen = self.prompt_set
        if chosen.is_chat:
            return chat_text(self.processor, chosen.question(name, image_prompt), chosen.order)
        before, after = chosen.text(name, image_prompt)
        return before + placeholder(self.processor) + after


def first_tokens(tokenize: Any, text: str, words: Sequence[str]) -> list[int]:
    """The token that follows `text` for each word, with a space where the text ends without one.

    Raises:
        AgiqaError: two words begin with the same token, so that the model cannot tell them apart.
    """
    before = tokenize(text)
    gap = "" if not text or text[-1].isspace() else " "
    firsts = []
    for word in words:
        whole = tokenize(text + gap + word)
        same = next(
            (i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before)
        )
        firsts.append(whole[min(same, len(whole) - 1)])
    for place, (word, token) in enumerate(zip(words, firsts, strict=True)):
        if token in firsts[:place]:
            other = words[firsts.index(token)]
            raise AgiqaError(
                f"The answers '{other}' and '{word}' begin with the same token of this model, "
                "which cannot be asked for their probabilities: choose other words."
            )
    return firsts
