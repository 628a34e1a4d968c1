"""Prompt sets: what the LMM is asked about each image. Data in YAML, read and checked here.

A set has a name, a citation, the order of text and image, a template with `{prompt}` and `{image}`
(or `chat`, the model's own), one or more poolings, and the prompts by name; perhaps the first words
of the model's reply, and answers whose probabilities are wanted as well. A prompt or the reply may
hold `{image_prompt}`, the text that the image was generated from. Each prompt becomes one semantic
vector for each pooling.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agiqa.core.errors import AgiqaError
from agiqa.core.regular_files import read_regular
from agiqa.core.trees import MOST_YAML
from agiqa.data.named_yaml import find_named, read_mapping

CHAT = "chat"  # as a template: the model's own chat template
IMAGE_PROMPT = "{image_prompt}"
ORDERS = ("text_first", "image_first")
POOLINGS = ("mean", "text_mean", "image_mean", "last")
KEYS = ("name", "citation", "order", "template", "pooling", "prompts")
OPTIONAL = ("reply", "answers", "answers_over")
WORDS, VOCABULARY = "words", "vocabulary"  # what the answers' probabilities sum to 1 over
LIKELIHOOD = "likelihood"  # as answers: how likely the model finds the image's own prompt
# Nats a token of it, mean: given the image, and by how much that is more than given a blank one.
LIKELIHOODS = (LIKELIHOOD, "gain")
TAKEN = ("visual", "answers")  # names of the experts that are not prompts
PLACE = re.compile(r"\{([\w .-]*)\}")  # {"a": 1} is text
# What models' special tokens look like: <image>, </s>, <|im_end|>, [INST].
MARK = re.compile(r"<[^<>\s]+>|\[/?[A-Za-z]?[A-Z_]{2,}\]")


@dataclass(frozen=True)
class PromptSet:
    """Questions by name and how they are put to the model."""

    name: str
    citation: str
    order: str  # text_first or image_first
    template: str  # holds {prompt} and {image} once each; or CHAT
    poolings: tuple[str, ...]  # over the positions of the last hidden state, see POOLINGS
    prompts: Mapping[str, str]
    answers: tuple[str, ...] = ()  # words whose probabilities are wanted, or LIKELIHOODS
    answers_over: str = WORDS  # or VOCABULARY, or LIKELIHOOD: of a reply that ends in the prompt
    reply: str = ""  # how the model's reply begins: the answers follow

    @property
    def is_chat(self) -> bool:
        """Whether the model's own chat template puts the questions."""
        return self.template == CHAT

    def asks_image_prompt(self, name: str) -> bool:
        """Tell whether that prompt, or the reply, holds the image's generation prompt."""
        return IMAGE_PROMPT in self.prompts[name] + self.reply

    def image_prompt(self, name: str, image_prompt: str | None) -> str:
        """Strip the image's generation prompt; "" where the prompt of that name asks for none.

        Raises:
            AgiqaError: it asks for one, and there is none.
        """
        if not self.asks_image_prompt(name):
            return ""
        if image_prompt is None or not image_prompt.strip():
            raise AgiqaError(
                f"Prompt '{name}' of set '{self.name}' holds {IMAGE_PROMPT}, but an image has no "
                "generation prompt: name the column that has them (agiqa prepare --prompt-column), "
                "or give it (agiqa score --image-prompt)."
            )
        return image_prompt.strip()

    def question(self, name: str, image_prompt: str | None = None) -> str:
        """Fill in the prompt of that name, with the image's generation prompt if it asks.

        Raises:
            AgiqaError: it asks for the generation prompt, and there is none.
        """
        return self.prompts[name].replace(IMAGE_PROMPT, self.image_prompt(name, image_prompt))

    def text(self, name: str, image_prompt: str | None = None) -> tuple[str, str]:
        """Split the prompt's text, reply included, into before and after the image; not for `chat`.

        Raises:
            AgiqaError: it asks for the generation prompt, and there is none.
        """
        before, after = self.template.split("{image}")
        question = self.question(name, image_prompt)
        reply = self.reply.replace(IMAGE_PROMPT, self.image_prompt(name, image_prompt))
        return before.replace("{prompt}", question), after.replace("{prompt}", question) + reply


def marks_in(text: str) -> list[str]:
    """Find what some model may take for a special token, by another form of Unicode too."""
    return MARK.findall(text) or MARK.findall(unicodedata.normalize("NFKC", text))


def read_prompt_set(name: str) -> PromptSet:
    """Read the prompt set of that name in ./prompts or among the bundled, or at that path.

    Raises:
        AgiqaError: no such set (the known ones are listed), unknown or missing key, a template
            without `{prompt}` or `{image}`, an order that the template contradicts, an unknown
            placeholder or pooling, answers that are not two different words.
    """
    path = find_named(name, "prompts", "prompt set")
    tree = read_mapping(path, "prompt set", KEYS, OPTIONAL)
    try:
        return make_prompt_set(tree)
    except AgiqaError as error:
        raise AgiqaError(f"{path}: {error}") from error


def prompt_set_text(name: str) -> str:
    """Read the YAML text of the prompt set of that name.

    Raises:
        AgiqaError: no such set (the known ones are listed), or it cannot be read.
    """
    path = find_named(name, "prompts", "prompt set")
    try:
        return read_regular(path, MOST_YAML).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{path}: not a readable prompt set: {error}") from error


def make_prompt_set(tree: Mapping[str, Any]) -> PromptSet:
    """Make the set, or raise an AgiqaError that says what is wrong with it."""
    order = tree["order"]
    if order not in ORDERS:
        raise AgiqaError(f"order is one of {', '.join(ORDERS)}; found {order!r}.")
    prompts, reply = _prompts(tree["prompts"]), tree.get("reply", "")
    if not isinstance(reply, str):
        raise AgiqaError(f"reply is the text that the model's reply begins with; found {reply!r}.")
    _require_known_places(reply, "the reply")
    for name, text in prompts.items():
        if (text + reply).count(IMAGE_PROMPT) > 1:
            label = f"prompt '{name}'" + (" with the reply" if IMAGE_PROMPT in reply else "")
            raise AgiqaError(f"{label} holds {IMAGE_PROMPT} twice; once is the most.")
    answers, over = _answers(tree.get("answers"), tree.get("answers_over"))
    if over == LIKELIHOOD and not reply.endswith(IMAGE_PROMPT):
        raise AgiqaError(
            f"answers: {LIKELIHOOD} expects a reply that ends in {IMAGE_PROMPT}, found {reply!r}."
        )
    return PromptSet(
        name=str(tree["name"]),
        citation=" ".join(str(tree["citation"]).split()),
        order=order,
        template=_template(tree["template"], order),
        poolings=_poolings(tree["pooling"]),
        prompts=prompts,
        answers=answers,
        answers_over=over,
        reply=reply,
    )


def _template(template: object, order: str) -> str:
    if template == CHAT:
        return CHAT
    for mark in ("{prompt}", "{image}"):
        if not isinstance(template, str) or template.count(mark) != 1:
            raise AgiqaError(
                f"the template must hold {mark} exactly once, or be the word {CHAT} (the model's "
                "own chat template)."
            )
    assert isinstance(template, str)
    for placeholder in PLACE.findall(template):
        if placeholder not in ("prompt", "image"):
            raise AgiqaError(
                f"unknown placeholder {{{placeholder}}} in the template, which has {{prompt}} and "
                f"{{image}}; {IMAGE_PROMPT} stands in a prompt."
            )
    actual = ORDERS[template.index("{image}") < template.index("{prompt}")]
    if order != actual:
        raise AgiqaError(f"order says {order}, but the template is {actual}.")
    return template


def _poolings(pooling: object) -> tuple[str, ...]:
    poolings: Sequence[object] = pooling if isinstance(pooling, list) else [pooling]
    for name in poolings:
        if name not in POOLINGS:
            raise AgiqaError(
                f"pooling is one of {', '.join(POOLINGS)}, or a list of them; found {name!r}."
            )
    _refuse_twice("pooling", poolings)
    if not poolings:
        raise AgiqaError(f"pooling is an empty list; give one or more of {', '.join(POOLINGS)}.")
    return tuple(map(str, poolings))


def _prompts(prompts: object) -> dict[str, str]:
    texts = list(prompts.values()) if isinstance(prompts, dict) else []
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise AgiqaError("prompts must map at least one name to a non-empty text.")
    assert isinstance(prompts, dict)
    _refuse_twice("prompt", [str(key) for key in prompts])  # 1 and "1" are two keys to YAML
    for key, text in prompts.items():
        if not re.fullmatch(r"[\w-]+", str(key)):
            raise AgiqaError(
                f"prompt name {str(key)!r}: letters, digits, _ and - only; a dot stands before "
                "the pooling in a vector's name."
            )
        if key in TAKEN:
            raise AgiqaError(f"a prompt cannot be named '{key}': another expert is; rename it.")
        _require_known_places(text, f"prompt '{key}'")
    return {str(key): text.strip() for key, text in prompts.items()}


def _require_known_places(text: str, label: str) -> None:
    for placeholder in PLACE.findall(text):
        if f"{{{placeholder}}}" != IMAGE_PROMPT:
            raise AgiqaError(
                f"unknown placeholder {{{placeholder}}} in {label}; the only one is "
                f"{IMAGE_PROMPT}, the text that the image was generated from."
            )


def _answers(answers: object, over: object) -> tuple[tuple[str, ...], str]:
    """Check the answers, and what their probabilities sum to 1 over."""
    if answers is None or answers == LIKELIHOOD:
        if over is not None:
            raise AgiqaError("answers_over goes with answers that are words.")
        return (LIKELIHOODS, LIKELIHOOD) if answers else ((), WORDS)
    if over not in (None, WORDS, VOCABULARY):
        raise AgiqaError(f"answers_over is {WORDS} or {VOCABULARY}; found {over!r}.")
    least = 1 if over == VOCABULARY else 2
    if not isinstance(answers, list) or len(answers) < least:
        raise AgiqaError(
            f"answers must be a list of at least {('one word', 'two words')[least - 1]}, or "
            f"{LIKELIHOOD}; found {answers!r}."
        )
    for word in answers:
        if isinstance(word, bool | int | float):  # YAML 1.1 reads yes and no so
            raise AgiqaError(f"answers: {word!r} is no text to YAML; put the word in quotes.")
        if not isinstance(word, str) or not re.fullmatch(r"[^\W_][\w'-]*", word):
            raise AgiqaError(f"answers must be single words; found {word!r}.")
    _refuse_twice("answer", answers)
    return tuple(answers), str(over or WORDS)


def _refuse_twice(field: str, values: Sequence[object]) -> None:
    for entry in values:
        if values.count(entry) > 1:
            raise AgiqaError(f"{field} {entry!r} stands twice; name each once.")
