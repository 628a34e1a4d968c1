"""What a model's own processor makes of one image and one text. Stage 1.

Image and text apart: the image is processed once, in a worker process, and every prompt's tokens
are then expanded for it without doing so again.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.memory import TookTooLongError, bounded
from agiqa.data.images import fit_for_square
from agiqa.data.prompts import IMAGE_PROMPT, PromptSet
from agiqa.stage1.extractors.contract import RefusedError, Sample, refused, require_known
from agiqa.stage1.extractors.lmm.plain_text import HOLE, Filled

TEXT_ARRAYS = ("input_ids", "token_type_ids", "mm_token_type_ids")  # that a model may ask for
TEMPLATE_SECONDS, TEMPLATE_MEBIBYTES = 10, 512  # for a chat template; most take milliseconds
NOT_ARRAYS_OF_IMAGES = (*TEXT_ARRAYS, "attention_mask", "labels")


def image_features(
    processor: Any, image: Image.Image, pixel_budget: int | None = None
) -> dict[str, np.ndarray]:
    """Make what the model's vision half wants for one RGB image, float32 and int64.

    Names with a leading underscore are no arguments of the model: the processor's own counts,
    which `token_ids` needs. `pixel_budget` is the most pixels that the vision tower may see in
    one image, a thumbnail apart; never fewer than the least that the model takes.

    Raises:
        RefusedError: the processor refuses the image.
        AgiqaError: a pixel budget for a model that takes images of one size only.
    """
    recorder = _Recorder(processor.image_processor)
    own = copy.copy(processor)
    own.image_processor = recorder
    # Where the checkpoint says otherwise than its class, such as InternVL's crop_to_patches: the
    # class crops even where the checkpoint does not.
    stated = processor.image_processor.to_dict()
    defaults = getattr(processor, "images_kwargs", {})
    options = {name: stated[name] for name in defaults if stated.get(name) is not None}
    if pixel_budget is not None:
        image, bounds = _within(processor.image_processor, image, pixel_budget)
        options |= bounds
    text = getattr(processor, "image_token", None)  # CLIP and the like have none
    texts = {} if text is None else {"text": [text]}
    if getattr(processor.image_processor, "do_pad", False):
        image = fit_for_square(image)
    try:
        out = own(images=[image], images_kwargs=options, **texts)
    except Exception as error:  # such as Qwen-VL's on an image 200 times as wide as high
        raise refused(processor, image, error) from error
    wanted = {name for name in out if name not in NOT_ARRAYS_OF_IMAGES}
    counts = {f"_{name}": value for name, value in recorder.made.items() if name not in wanted}
    arrays = {name: out[name] for name in wanted} | counts
    return {name: _array(value) for name, value in sorted(arrays.items())}


def token_ids(
    processor: Any, features: Mapping[str, np.ndarray], text: str, words: str | None = None
) -> dict[str, np.ndarray]:
    """Tokenise a text with one image placeholder, expanded for these features: `(L,)`.

    With them the type ids `(L,)` that the tokenizer or the family gives. The image is not
    processed again. A text that already opens with BOS, as chat templates may, gets no second.
    `words` are the generation prompt, for the HOLE in the text (`lmm.plain_text`).

    Raises:
        RefusedError: the tokenizer cannot take the words as plain text.
        AgiqaError: the text holds no placeholder, or more than one.
    """
    count = text.count(placeholder := image_token(processor))
    if count != 1:
        raise AgiqaError(
            f"A prompt expects one image placeholder {placeholder!r}, found {count} in {text!r}."
        )
    own = copy.copy(processor)
    own.image_processor = _Ready(processor.image_processor, features)
    if words is not None:
        own.tokenizer = Filled(processor.tokenizer, words)
    opening = processor.tokenizer.bos_token
    special = not (opening and text.startswith(opening))
    stand_in = Image.new("RGB", (1, 1))  # never looked at
    out = own(images=[stand_in], text=[text], text_kwargs={"add_special_tokens": special})
    return {name: np.asarray(out[name][0], dtype=np.int64) for name in TEXT_ARRAYS if name in out}


def chat_text(processor: Any, question: str, order: str) -> str:
    """Put question and image into the model's chat template: one user turn, answer next.

    `order` is text_first or image_first.

    Raises:
        AgiqaError: no chat template, or one that leaves the image out or fixes the other order.
    """
    kind = type(processor).__name__
    question = question.strip()  # as several templates do
    content = [{"type": "text", "text": question}, {"type": "image"}]
    text = _chat(processor, content[::-1] if order == "image_first" else content)
    image, start = text.find(image_token(processor)), text.find(question)
    if image < 0 or start < 0:
        raise AgiqaError(
            f"The chat template of {kind} leaves out the {'image' if image < 0 else 'question'}: "
            "use a prompt set with a template of its own."
        )
    if (image < start) != (order == "image_first"):
        actual = "image_first" if order == "text_first" else "text_first"
        raise AgiqaError(
            f"The chat template of {kind} always gives {actual}, the prompt set asks for {order}: "
            f"set order: {actual}, or use a template of its own."
        )
    return text


def placeholder(processor: Any) -> str:
    """Find what stands for one image in a text: the image token and what is put around it.

    Raises:
        AgiqaError: the processor has no image token.
    """
    token = image_token(processor)
    before, after = "\x02", "\x03"  # occur in no template
    turn = [
        {"type": "text", "text": before},
        {"type": "image"},
        {"type": "text", "text": after},
    ]
    try:
        text = _chat(processor, turn)
    except AgiqaError:
        return token
    between = text.partition(before)[2].partition(after)[0].strip()
    return between if between.count(token) == 1 else token


def image_token(processor: Any) -> str:
    """Find the token that the processor expands to the image's tokens.

    Raises:
        AgiqaError: it has none.
    """
    token = getattr(processor, "image_token", None)
    if not isinstance(token, str):
        raise AgiqaError(
            f"{type(processor).__name__} has no image token, which marks the image's place in a "
            "prompt: choose another model."
        )
    return token


class _Recorder:
    """An image processor that keeps what it last made."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.made: dict[str, Any] = {}

    def __call__(self, images: Any, **options: Any) -> Any:
        result = self.real(images, **options)
        self.made = dict(result)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class _Ready:
    """An image processor that gives the features made before, whatever it is shown."""

    def __init__(self, real: Any, features: Mapping[str, np.ndarray]) -> None:
        self.real = real
        self.features = features

    def __call__(self, images: Any, **options: Any) -> Any:
        from transformers import BatchFeature

        return BatchFeature({name.removeprefix("_"): data for name, data in self.features.items()})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def _within(processor: Any, image: Image.Image, budget: int) -> tuple[Image.Image, dict[str, Any]]:
    """Choose the image and the image processor's options that keep to `budget` pixels."""
    stated = processor.to_dict()
    size = dict(stated.get("size") or {})
    if "temporal_patch_size" in stated and "longest_edge" in size:  # Qwen-VL: bounds in pixels
        most = min(size["longest_edge"], budget)
        least = min(size["shortest_edge"], most)
        return image, {"size": {"shortest_edge": least, "longest_edge": most}}
    if stated.get("crop_to_patches"):  # InternVL: a number of tiles
        tile = size["height"] * size["width"]
        most = max(1, min(stated["max_patches"], budget // tile))
        return image, {"max_patches": most, "min_patches": min(stated["min_patches"], most)}
    if stated.get("do_image_splitting") and "max_image_size" in stated:  # SmolVLM: a longest edge
        tile = stated["max_image_size"]["longest_edge"]
        edge = tile * max(1, math.isqrt(budget) // tile)
        return image, {"size": {"longest_edge": min(size["longest_edge"], edge)}}
    if "max_num_patches" in stated:  # SigLIP 2 NaFlex
        most = max(1, budget // stated["patch_size"] ** 2)
        return image, {"max_num_patches": min(stated["max_num_patches"], most)}
    if stated.get("image_grid_pinpoints"):  # LLaVA-OneVision: a canvas that the image fits
        return _shrink_to_canvas(image, stated["image_grid_pinpoints"], budget), {}
    raise AgiqaError(
        f"A pixel budget expects a model of dynamic resolution, but {type(processor).__name__} "
        f"makes every image {size or 'one size'}: leave it out."
    )


def _shrink_to_canvas(image: Image.Image, canvases: list[list[int]], budget: int) -> Image.Image:
    """Shrink the image to the canvas, of those within the budget, that suits it best.

    The list of canvases is the model's as well, and cannot be cut down; a smaller image gets a
    smaller canvas.
    """
    from transformers.image_processing_utils import select_best_resolution

    size = (image.height, image.width)
    least = min(height * width for height, width in canvases)
    allowed = [canvas for canvas in canvases if canvas[0] * canvas[1] <= max(budget, least)]
    height, width = select_best_resolution(size, allowed)
    if (height, width) == tuple(select_best_resolution(size, canvases)):
        return image  # the processor takes this canvas without our help
    scale = min(width / image.width, height / image.height)
    smaller = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(smaller, Image.Resampling.BICUBIC)


def _chat(processor: Any, content: list[dict[str, str]]) -> str:
    """Put one user turn through the processor's chat template, else its tokenizer's."""
    template = processor.chat_template or getattr(processor.tokenizer, "chat_template", None)
    if template is None:
        raise AgiqaError(
            f"{type(processor).__name__} has no chat template: use a prompt set with a template "
            "of its own."
        )
    from jinja2 import TemplateError

    try:
        with bounded(TEMPLATE_SECONDS, TEMPLATE_MEBIBYTES):  # it is a program of the model's makers
            return str(
                processor.apply_chat_template(
                    [{"role": "user", "content": content}],
                    chat_template=None if processor.chat_template else template,
                    add_generation_prompt=True,
                    tokenize=False,
                )
            )
    except (TookTooLongError, MemoryError) as error:
        raise AgiqaError(
            f"The chat template of {type(processor).__name__} takes more than "
            f"{TEMPLATE_SECONDS} s or {TEMPLATE_MEBIBYTES} MiB for one turn: use another model."
        ) from error
    except (ValueError, TypeError, TemplateError) as error:
        raise AgiqaError(
            f"The chat template of {type(processor).__name__} does not take one turn with an "
            f"image: {one_line(error)}. Use a prompt set with a template of its own."
        ) from error


def _array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)


@dataclass(eq=False)
class Texts:
    """The text as the processor has it: the model's chat template, or the prompt set's own."""

    prompt_set: PromptSet  # the questions
    processor: Any  # the model's own
    model: str  # its name, for messages
    vocabulary: int  # rows of its embedding
    longest: int = 0  # tokens that a text may have with its image; 0: as many as one likes
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
