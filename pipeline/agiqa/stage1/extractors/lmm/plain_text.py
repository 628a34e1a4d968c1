"""A generation prompt among tokens: the user's words, whatever special tokens they spell. Stage 1.

A text for the model is made with HOLE where the generation prompt goes, so that neither the chat
template nor the processor reads it. Words that spell no mark are put in before the text is
tokenised, as anything else is. Of words that do (`<image>`, `</s>`), the stretch between the marks
around them is tokenised by the same tokenizer without its marks: no token of theirs ends a turn or
stands for an image.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from agiqa.core.errors import some
from agiqa.data.prompts import MARK, marks_in
from agiqa.stage1.extractors.contract import RefusedError

HOLE = "\ue000generation-prompt\ue001"  # of a private-use area: no one's words
ANCHOR = "\ue002"  # what comes before a stretch, so that it is not taken for a text's beginning


class Filled:
    """A tokenizer as a processor calls it, for one text with a HOLE."""

    def __init__(self, tokenizer: Any, words: str) -> None:
        self.tokenizer, self.words = tokenizer, words

    def __call__(self, text: Any, **options: Any) -> Any:
        """Tokenise the text with the words in it, ids and masks as the tokenizer gives them."""
        (full,) = [text] if isinstance(text, str) else text
        before, after = full.split(HOLE)
        start = len(before) + len(HOLE)
        if not marks_in(self.words):
            encoded = self.tokenizer([before + self.words + after], **options)
            further = len(self.words) - len(HOLE)
            find = getattr(encoded, "char_to_token", None)
            return _encoding(
                encoded, lambda char: find and find(0, char + further * (char >= start))
            )
        head, middle, tail = _stretches(self.tokenizer, before, self.words, after)
        ids = [*_ids(head), *middle, *_ids(tail)]
        opening: list[int] = []
        if options.get("add_special_tokens", True):
            opening, end = _opening_and_end(self.tokenizer)
            ids = [*opening, *ids, *end]
        encoded = {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}
        if options.get("return_token_type_ids"):
            encoded["token_type_ids"] = [[0] * len(ids)]
        tail_start = len(full) - (0 if tail is None else tail[1])
        behind = len(opening) + len(_ids(head)) + len(middle)

        def place_of(char: int) -> int | None:
            if head is not None and char < head[1]:
                token, shift = head[0].char_to_token(char), len(opening)
            elif tail is not None and char >= tail_start:
                token, shift = tail[0].char_to_token(char - tail_start), behind
            else:
                return None
            return None if token is None else int(token) + shift

        return _encoding(encoded, place_of)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


Part = tuple[Any, int] | None  # an encoding, and the characters that it is of


def _encoding(encoded: Any, place_of: Callable[[int], int | None]) -> Any:
    """Make what a tokenizer returns, asked for by characters of the text with the HOLE."""
    from transformers import BatchEncoding

    class Encoding(BatchEncoding):
        def char_to_token(self, _row: int, char: int) -> int | None:
            return place_of(char)

    return Encoding(dict(encoded))


def _ids(part: Part) -> list[int]:
    return [] if part is None else list(part[0]["input_ids"])


def _stretches(
    tokenizer: Any, before: str, words: str, after: str
) -> tuple[Part, Sequence[int], Part]:
    """Split at the marks: what is before them, the words and what surrounds them, the rest.

    Raises:
        RefusedError: the tokenizer cannot take the words but as marks.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise RefusedError(
            f"its generation prompt spells {some(marks_in(words))}, which this model's tokenizer "
            "may take for a mark of its own: take it out of the prompt"
        )
    added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
    longest_first = sorted(map(re.escape, added), key=len, reverse=True)
    any_mark = re.compile("|".join(longest_first) or r"(?!)")
    start, end = 0, len(after)
    for mark in any_mark.finditer(before):
        start = mark.end()
        if added[mark[0]].rstrip:  # it takes the space behind it
            start = len(before) - len(before[start:].lstrip())
    if following := any_mark.search(after):
        end = following.start()
        if added[following[0]].lstrip:
            end = len(after[:end].rstrip())
    head, tail = (
        (tokenizer(part, add_special_tokens=False), len(part)) if part else None
        for part in (before[:start], after[end:])
    )
    middle = _without_marks(tokenizer, before[start:] + words + after[:end], head is not None)
    marks = {i for i, token in tokenizer.added_tokens_decoder.items() if MARK.match(token.content)}
    if taken := sorted((marks - {tokenizer.unk_token_id}).intersection(middle)):
        raise RefusedError(
            f"its generation prompt spells {some(tokenizer.convert_ids_to_tokens(taken))}, which "
            "this model's tokenizer has no other tokens for: take it out of the prompt"
        )
    return head, middle, tail


def _without_marks(tokenizer: Any, text: str, inside: bool) -> Sequence[int]:
    """Tokenise a stretch of text, `inside` a longer one or at its beginning."""
    from tokenizers import AddedToken

    plain, true_ids = _plain(tokenizer)
    if not inside:
        ids = plain.encode(text, add_special_tokens=False).ids
    else:
        plain.add_special_tokens([AddedToken(ANCHOR, normalized=False)])
        ids = plain.encode(ANCHOR + text, add_special_tokens=False).ids[1:]
    return [true_ids.get(i, i) for i in ids]


@lru_cache(maxsize=4)  # of a large vocabulary it takes a second
def _plain(tokenizer: Any) -> tuple[Any, dict[int | None, int]]:
    """Make the tokenizer without its marks; map its other added tokens' ids to the true ones."""
    from tokenizers import Tokenizer

    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    words = [token for token in tree["added_tokens"] if not MARK.match(token["content"])]
    tree |= {"added_tokens": words, "truncation": None, "padding": None}
    plain = Tokenizer.from_str(json.dumps(tree))
    return plain, {plain.token_to_id(token["content"]): token["id"] for token in words}


def _opening_and_end(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Find what the tokenizer puts before and behind a text of its own accord."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []
