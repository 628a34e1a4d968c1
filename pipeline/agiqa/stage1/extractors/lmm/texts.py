"""Prompts as tokens around an image, by the model's own processor.

It knows how many tokens an image of some size becomes, and what stands around them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.data.prompts import IMAGE_PROMPT, PromptSet
from agiqa.stage1.extractors.contract import Sample
from agiqa.stage1.extractors.failures import RefusedError, require_known
from agiqa.stage1.extractors.lmm.inputs import chat_text, placeholder, token_ids
from agiqa.stage1.extractors.lmm.plain_text import HOLE


@dataclass(eq=False)
class Texts:
    """The text as the processor has it: the model's chat template, or the prompt set's own.

    Args:
        prompt_set: the questions.
        processor: the model's own.
        model: its name, for messages.
        vocabulary: rows of its embedding.
        longest: tokens that a text may have with its image; 0: as many as one likes.
    """

    prompt_set: PromptSet
    processor: Any
    model: str
    vocabulary: int
    longest: int = 0
    _texts: dict[str, str] = field(default_factory=dict)
    _made: dict[tuple[str, object], Mapping[str, np.ndarray]] = field(default_factory=dict)

    def tokens(self, name: str, sample: Sample) -> Mapping[str, np.ndarray]:
        """Make tokens for the image's size; those of one size are made once.

        Raises:
            RefusedError: of this image or its generation prompt they are too many, or unknown.
            AgiqaError: they are unknown for any image.
        """
        if self.prompt_set.asks_image_prompt(name):
            return sample.texts[name] if name in sample.texts else self._own(name, sample)
        key = (name, sample.key)
        if key not in self._made:
            tokens = token_ids(self.processor, sample.arrays, self.text(name))
            try:
                require_known(tokens["input_ids"].tolist(), self.vocabulary, self.model)
            except RefusedError as error:
                raise AgiqaError(f"{error} (prompt '{name}').") from error
            self._made[key] = tokens
        return self._made[key]

    def own(self, sample: Sample) -> dict[str, Mapping[str, np.ndarray]]:
        """Make tokens of the prompts that hold the image's own, which are of it alone.

        Raises:
            RefusedError: the model cannot take the image with one of the prompts.
        """
        if self.longest and self._wordiest:
            self._require_room(self.tokens(self._wordiest, sample))
        if sample.image_prompt is None:
            return {}
        chosen = self.prompt_set
        asking = [name for name in chosen.prompts if chosen.asks_image_prompt(name)]
        return {name: self._own(name, sample) for name in asking}

    def answers(self, name: str, words: Sequence[str], sample: Sample) -> list[int]:
        """Find the token after the text, answer by answer."""
        tail = self.text(name).rpartition(placeholder(self.processor))[2]
        if sample.image_prompt is not None:
            tail = tail.replace(HOLE, sample.image_prompt.strip())
        ask = self.processor.tokenizer
        return first_tokens(
            lambda t: list(ask(t, add_special_tokens=False)["input_ids"]), tail, words
        )

    def own_start(self, name: str, sample: Sample) -> int:
        """Count the tokens before the generation prompt with which the text ends.

        Raises:
            AgiqaError: the model's processor has put more behind it.
        """
        key = (f"before the hole of {name}", sample.key)
        if key not in self._made:
            text = self.text(name).removesuffix(HOLE)
            self._made[key] = token_ids(self.processor, sample.arrays, text)
        before, whole = (
            tokens["input_ids"].tolist() for tokens in (self._made[key], self.tokens(name, sample))
        )
        start = _common(before, whole)
        if start < len(before) and whole[start - len(before) :] == before[start:]:
            raise AgiqaError(
                f"'{self.model}' puts its own tokens behind a text, and cannot be asked for the "
                "likelihood of a prompt: use another model."
            )
        return start

    def text(self, name: str) -> str:
        """Write what the processor is given, a HOLE in place of the generation prompt."""
        if name not in self._texts:
            chosen = self.prompt_set
            if chosen.is_chat:
                question = chosen.question(name, HOLE)
                reply = chosen.reply.replace(IMAGE_PROMPT, HOLE)
                self._texts[name] = chat_text(self.processor, question, chosen.order) + reply
            else:
                before, after = chosen.text(name, HOLE)
                self._texts[name] = before + placeholder(self.processor) + after
        return self._texts[name]

    def _own(self, name: str, sample: Sample) -> Mapping[str, np.ndarray]:
        words = self.prompt_set.image_prompt(name, sample.image_prompt)
        tokens = token_ids(self.processor, sample.arrays, self.text(name), words)
        require_known(tokens["input_ids"].tolist(), self.vocabulary, self.model)
        self._require_room(tokens)
        return tokens

    def _require_room(self, tokens: Mapping[str, np.ndarray]) -> None:
        count = len(tokens["input_ids"])
        if self.longest and count > self.longest:
            raise RefusedError(
                f"its text and image are {count:,} tokens, more than the {self.longest:,} that "
                f"'{self.model}' takes: shorten the prompt, or set semantic.pixel_budget"
            )

    @cached_property
    def _wordiest(self) -> str:
        """The longest of the prompts that are the same for all images; "" for none."""
        chosen = self.prompt_set
        fixed = [name for name in chosen.prompts if not chosen.asks_image_prompt(name)]
        return max(fixed, key=lambda name: len(chosen.prompts[name]), default="")


def first_tokens(tokenize: Any, text: str, words: Sequence[str]) -> list[int]:
    """Find each word's first token after `text`, a space between where the text has none.

    Raises:
        AgiqaError: two words begin with the same token, so that the model cannot tell them apart.
    """
    before = tokenize(text)
    gap = "" if not text or text[-1].isspace() else " "
    firsts = []
    for word in words:
        tokens = tokenize(text + gap + word)
        firsts.append(tokens[min(_common(before, tokens), len(tokens) - 1)])
    for index, (word, token) in enumerate(zip(words, firsts, strict=True)):
        if token in firsts[:index]:
            earlier = words[firsts.index(token)]
            raise AgiqaError(
                f"The answers '{earlier}' and '{word}' begin with the same token of this model, "
                "which cannot be asked for their probabilities: choose other words."
            )
    return firsts


def _common(before: Sequence[int], tokens: Sequence[int]) -> int:
    """Count the tokens that both begin with."""
    pairs = enumerate(zip(before, tokens, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(before), len(tokens)))
