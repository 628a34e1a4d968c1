"""Prompt sets: what the LMM is asked about each image. Data in YAML, read and checked here.

A set has a name, a citation, the order of text and image, a template with `{prompt}` and `{image}`
(or `chat`, the model's own), one or more poolings, and the prompts by name; perhaps answers whose
probabilities are wanted as well. A prompt may hold `{image_prompt}`, the text that the image was
generated from. Each prompt becomes one semantic vector for each pooling.
"""

import difflib
import importlib.resources
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.regular_files import read_regular
from agiqa.core.trees import MOST_YAML, read_yaml

CHAT = "chat"  # as a template: the model's own chat template
IMAGE_PROMPT = "{image_prompt}"
ORDERS = ("text_first", "image_first")
POOLINGS = ("mean", "text_mean", "image_mean", "last")
KEYS = ("name", "citation", "order", "template", "pooling", "prompts")
OPTIONAL = ("answers",)
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
    answers: tuple[str, ...] = ()  # words whose probabilities are wanted

    @property
    def is_chat(self) -> bool:
        """Whether the model's own chat template puts the questions."""
        return self.template == CHAT

    def asks_image_prompt(self, name: str) -> bool:
        """Tell whether the prompt of that name holds the image's generation prompt."""
        return IMAGE_PROMPT in self.prompts[name]

    def question(self, name: str, image_prompt: str | None = None) -> str:
        """Fill in the prompt of that name, with the image's generation prompt if it asks.

        Raises:
            AgiqaError: it asks for the generation prompt, and there is none.
        """
        if not self.asks_image_prompt(name):
            return self.prompts[name]
        if image_prompt is None or not image_prompt.strip():
            raise AgiqaError(
                f"Prompt '{name}' of set '{self.name}' holds {IMAGE_PROMPT}, but an image has no "
                "generation prompt: name the column that has them (agiqa prepare --prompt-column), "
                "or give it (agiqa score --image-prompt)."
            )
        return self.prompts[name].replace(IMAGE_PROMPT, image_prompt.strip())

    def text(self, name: str, image_prompt: str | None = None) -> tuple[str, str]:
        """Split the prompt's text into before and after the image; not for `chat`."""
        before, after = self.template.split("{image}")
        question = self.question(name, image_prompt)
        return before.replace("{prompt}", question), after.replace("{prompt}", question)


def marks_in(text: str) -> list[str]:
    """Find what some model may take for a special token, by another form of Unicode too."""
    return MARK.findall(text) or MARK.findall(unicodedata.normalize("NFKC", text))


def bundled_folder() -> Path:
    """Find the prompt sets that come with agiqa: in the wheel, or a checkout's `prompts/`."""
    installed = Path(str(importlib.resources.files("agiqa"))) / "bundled_prompts"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "prompts"


def read_prompt_set(name: str) -> PromptSet:
    """Read the prompt set of that name in ./prompts or among the bundled, or at that path.

    Raises:
        AgiqaError: no such set (the known ones are listed), unknown or missing key, a template
            without `{prompt}` or `{image}`, an order that the template contradicts, an unknown
            placeholder or pooling, answers that are not two different words.
    """
    path = _locate(name)
    try:
        tree = read_yaml(path)
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{path}: not a readable prompt set: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise AgiqaError(f"{path}: expected the keys {', '.join(KEYS)}.")
    for key in tree:
        if key not in KEYS + OPTIONAL:
            near = difflib.get_close_matches(str(key), KEYS + OPTIONAL, n=1)
            valid = f"valid: {', '.join(KEYS)}, and at will {', '.join(OPTIONAL)}."
            raise AgiqaError(
                f"{path}: unknown key '{key}'; " + (f"did you mean '{near[0]}'?" if near else valid)
            )
    missing = [key for key in KEYS if key not in tree]
    if missing:
        raise AgiqaError(f"{path}: missing {', '.join(missing)}.")
    try:
        return make_prompt_set(tree)
    except AgiqaError as error:
        raise AgiqaError(f"{path}: {error}") from error


def prompt_set_text(name: str) -> str:
    """Read the YAML text of the prompt set of that name.

    Raises:
        AgiqaError: no such set (the known ones are listed), or it cannot be read.
    """
    path = _locate(name)
    try:
        return read_regular(path, MOST_YAML).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{path}: not a readable prompt set: {error}") from error


def _locate(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise AgiqaError(f"Prompt set {name} does not exist.")
        return Path(name)
    folders = (Path("prompts"), bundled_folder())
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise AgiqaError(
        f"Unknown prompt set '{name}'; known: {', '.join(known)}. A path to a YAML file works too."
    )


def make_prompt_set(tree: Mapping[str, Any]) -> PromptSet:
    """Make the set, or raise an AgiqaError that says what is wrong with it."""
    order = tree["order"]
    if order not in ORDERS:
        raise AgiqaError(f"order is one of {', '.join(ORDERS)}; found {order!r}.")
    return PromptSet(
        name=str(tree["name"]),
        citation=" ".join(str(tree["citation"]).split()),
        order=order,
        template=_template(tree["template"], order),
        poolings=_poolings(tree["pooling"]),
        prompts=_prompts(tree["prompts"]),
        answers=_answers(tree["answers"]) if "answers" in tree else (),
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
    given: Sequence[object] = pooling if isinstance(pooling, list) else [pooling]
    for name in given:
        if name not in POOLINGS:
            raise AgiqaError(
                f"pooling is one of {', '.join(POOLINGS)}, or a list of them; found {name!r}."
            )
    _refuse_twice("pooling", given)
    if not given:
        raise AgiqaError(f"pooling is an empty list; give one or more of {', '.join(POOLINGS)}.")
    return tuple(map(str, given))


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
        for placeholder in PLACE.findall(text):
            if f"{{{placeholder}}}" != IMAGE_PROMPT:
                raise AgiqaError(
                    f"unknown placeholder {{{placeholder}}} in prompt '{key}'; the only one is "
                    f"{IMAGE_PROMPT}, the text that the image was generated from."
                )
        if text.count(IMAGE_PROMPT) > 1:
            raise AgiqaError(f"prompt '{key}' holds {IMAGE_PROMPT} twice; once is the most.")
    return {str(key): text.strip() for key, text in prompts.items()}


def _answers(answers: object) -> tuple[str, ...]:
    if not isinstance(answers, list) or len(answers) < 2:
        raise AgiqaError(f"answers must be a list of at least two words; found {answers!r}.")
    for word in answers:
        if isinstance(word, bool | int | float):  # YAML 1.1 reads yes and no so
            raise AgiqaError(f"answers: {word!r} is no text to YAML; put the word in quotes.")
        if not isinstance(word, str) or not re.fullmatch(r"[^\W_][\w'-]*", word):
            raise AgiqaError(f"answers must be single words; found {word!r}.")
    _refuse_twice("answer", answers)
    return tuple(answers)


def _refuse_twice(what: str, given: Sequence[object]) -> None:
    for entry in given:
        if given.count(entry) > 1:
            raise AgiqaError(f"{what} {entry!r} stands twice; name each once.")
