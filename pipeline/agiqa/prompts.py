"""Prompt sets: what the LMM is asked about each image. Data in YAML, read and checked here.

A set has a name, a citation, a template with `{prompt}` and `{image}`, the order the template
must have, a pooling, and the prompts by name. Each prompt becomes one semantic vector.
"""

import difflib
import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agiqa.errors import AgiqaError

ORDERS = ("text_first", "image_first")
POOLINGS = ("mean",)
KEYS = ("name", "citation", "order", "template", "pooling", "prompts")


@dataclass(frozen=True)
class PromptSet:
    """Questions by name and how they are put to the model."""

    name: str
    citation: str
    order: str  # text_first or image_first
    template: str  # holds {prompt} and {image} once each
    pooling: str  # mean: over all positions, text and image
    prompts: dict[str, str]

    def text(self, prompt: str) -> tuple[str, str]:
        """The text before and after the image for the prompt of that name."""
        before, after = self.template.split("{image}")
        question = self.prompts[prompt]
        return before.replace("{prompt}", question), after.replace("{prompt}", question)


def bundled_folder() -> Path:
    """Prompt sets that come with agiqa: in the wheel, or `prompts/` of a checkout."""
    installed = Path(str(importlib.resources.files("agiqa"))) / "bundled_prompts"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "prompts"


def read_prompt_set(name: str) -> PromptSet:
    """The prompt set of that name in ./prompts or among the bundled ones, or at that path.

    Raises:
        AgiqaError: no such set (the known ones are listed), unknown or missing key, a template
            without `{prompt}` or `{image}`, an order that the template contradicts.
    """
    path = _locate(name)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AgiqaError(
            f"{path}: not a readable prompt set: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(tree, dict):
        raise AgiqaError(f"{path}: expected the keys {', '.join(KEYS)}.")
    for key in tree:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"valid: {', '.join(KEYS)}."
            raise AgiqaError(f"{path}: unknown key '{key}'; {hint}")
    missing = [key for key in KEYS if key not in tree]
    if missing:
        raise AgiqaError(f"{path}: missing {', '.join(missing)}.")
    return _check(path, tree)


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


def _check(path: Path, tree: dict[str, Any]) -> PromptSet:
    template, order, prompts = tree["template"], tree["order"], tree["prompts"]
    for mark in ("{prompt}", "{image}"):
        if not isinstance(template, str) or template.count(mark) != 1:
            raise AgiqaError(f"{path}: the template must hold {mark} exactly once.")
    if order not in ORDERS:
        raise AgiqaError(f"{path}: order is one of {', '.join(ORDERS)}; found {order!r}.")
    actual = ORDERS[template.index("{image}") < template.index("{prompt}")]
    if order != actual:
        raise AgiqaError(f"{path}: order says {order}, but the template is {actual}.")
    if tree["pooling"] not in POOLINGS:
        raise AgiqaError(
            f"{path}: pooling is one of {', '.join(POOLINGS)}; found {tree['pooling']!r}."
        )
    good = isinstance(prompts, dict) and bool(prompts)
    if not good or not all(isinstance(text, str) and text.strip() for text in prompts.values()):
        raise AgiqaError(f"{path}: prompts must map at least one name to a non-empty text.")
    return PromptSet(
        name=str(tree["name"]),
        citation=" ".join(str(tree["citation"]).split()),
        order=order,
        template=template,
        pooling=tree["pooling"],
        prompts={str(key): text.strip() for key, text in prompts.items()},
    )
