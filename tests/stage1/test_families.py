"""Each family's vectors are those of the plain transformers forward, whatever is shared."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic
from agiqa.stage1.extractors import ImageTextExtractor, semantic_extractor
from agiqa.stage1.extractors.lmm.forward import LEVELS, Shares
from agiqa.stage1.extractors.lmm.inputs import chat_text, placeholder
from agiqa.stage1.extractors.loading import find_model, load_processor
from kit import families

FAMILIES = (
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_5",
    "internvl",
    "llava",
    "llava_onevision",
    "smolvlm",
    "idefics3",
    "gemma3",
    "paligemma",
)
PROMPTS = {"hands": "Are the hands right?", "light": "Is it lit as a thing in the world would be?"}
POOLINGS = ("mean", "text_mean", "image_mean", "last")
ANSWERS = ("bad", "fair", "good")
PLAIN = {
    "text_first": "USER: {prompt}\n{image} ASSISTANT:\n",
    "image_first": "USER: {image}\n{prompt} ASSISTANT:\n",
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder."""
    build: Callable[[Path], Path] = getattr(families, request.param)
    return build(tmp_path_factory.mktemp("families") / request.param)


@pytest.fixture
def settings(write_prompts: Callable[..., str]) -> Callable[..., Semantic]:
    def make(folder: Path, order: str, layers: tuple[int, ...] = (), **changed: Any) -> Semantic:
        asked: dict[str, Any] = {"order": order, "template": PLAIN[order]}
        asked |= {"pooling": list(POOLINGS), "answers": list(ANSWERS)} | changed
        asked = {key: value for key, value in asked.items() if value != []}
        prompts = write_prompts(PROMPTS, f"{order}.yaml", **asked)
        return Semantic(model=str(folder), prompts=prompts, batch_size=4, layers=layers)

    return make


def images(count: int = 3) -> list[Image.Image]:
    """Of two shapes, none of them square."""
    rng = np.random.default_rng(0)
    sizes = [(61, 40), (40, 61), (61, 40)][:count]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def plain(model: Any, processor: Any, image: Image.Image, text: str) -> tuple[Any, Any, Any]:
    """Token ids `(L,)`, all layers' states, each `(L, D)`, and logits, as anyone would get them."""
    opening = processor.tokenizer.bos_token
    special = not (opening and text.startswith(opening))
    # InternVL's processor cuts images into tiles even where its checkpoint says not to.
    cut = getattr(processor.image_processor, "crop_to_patches", None)
    inputs = processor(
        images=[image],
        text=[text],
        return_tensors="pt",
        images_kwargs={} if cut is None else {"crop_to_patches": cut},
        text_kwargs={"add_special_tokens": special, "return_mm_token_type_ids": True},
    )
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    states = [state[0].numpy() for state in output.hidden_states]
    return inputs["input_ids"][0].numpy(), states, output.logits[0].numpy()


def pooled(states: np.ndarray, image: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "mean": states.mean(0),
        "text_mean": states[~image].mean(0),
        "image_mean": states[image].mean(0),
        "last": states[-1],
    }


def vectors(
    extractor: ImageTextExtractor, seen: list[Image.Image], words: Sequence[str | None] = ()
) -> list[dict[str, np.ndarray]]:
    """By name, for each image; images of one shape together."""
    from agiqa.stage1.batches import in_batches

    made = map(extractor.preprocess, seen, words or [None] * len(seen))
    samples = list(enumerate(made))
    found: list[dict[str, np.ndarray]] = [{} for _ in seen]
    every = range(len(extractor.vectors))
    for places, some in in_batches(iter(samples), extractor.batch_size):
        for vector, rows in zip(extractor.vectors, extractor.extract(some, every), strict=True):
            for place, row in zip(places, rows, strict=False):
                found[place][f"{vector.store}/{vector.name}"] = row
    return found


def blank(processor: Any, image: Image.Image) -> Image.Image:
    """Nothing but the mean colour that pixels are centred on."""
    red, green, blue = (round(255 * value) for value in processor.image_processor.image_mean)
    return Image.new("RGB", image.size, (red, green, blue))


@pytest.mark.parametrize("order", ["text_first", "image_first"])
def test_vectors_equal_the_plain_forward(
    family: Path, order: str, settings: Callable[..., Semantic]
) -> None:
    extractor = semantic_extractor(settings(family, order, layers=(1,)))
    assert isinstance(extractor, ImageTextExtractor)
    ours = vectors(extractor, images())
    model = transformers.AutoModelForImageTextToText.from_pretrained(family).eval()
    processor = load_processor(find_model(str(family)))
    for image, vectors_of in zip(images(), ours, strict=True):
        for name, question in PROMPTS.items():
            text = PLAIN[order].replace("{prompt}", question)
            text = text.replace("{image}", placeholder(processor))
            ids, states, logits = plain(model, processor, image, text)
            places = ids == model.config.image_token_id
            assert places.sum() > 1
            for pooling, expected in pooled(states[-1], places).items():
                np.testing.assert_allclose(vectors_of[f"/{name}.{pooling}"], expected, atol=1e-5)
            for pooling, expected in pooled(states[1], places).items():
                got = vectors_of[f"/{name}.layer1.{pooling}"]
                np.testing.assert_allclose(got, expected, atol=1e-5)
            # One token a byte: answers differ in their first letters.
            letters = [processor.tokenizer.convert_tokens_to_ids(word[0]) for word in ANSWERS]
            chosen = torch.from_numpy(logits[-1, letters]).softmax(dim=0).numpy()
            np.testing.assert_allclose(vectors_of[f"answers/{name}"], chosen, atol=1e-5)
    assert np.abs(ours[0]["/hands.last"] - ours[2]["/hands.last"]).max() > 1e-4  # images matter


def test_nothing_that_can_be_shared_is_left_out(
    family: Path, settings: Callable[..., Semantic]
) -> None:
    """All of it in causal models; PaliGemma's text looks ahead, Qwen3.5's layers keep a sum."""
    for order in ("text_first", "image_first"):
        extractor = ImageTextExtractor(settings(family, order))
        vectors(extractor, images(1))
        assert extractor._model is not None
        shares = extractor._model.forward.shares
        # Where the questions come first, nothing is in common, and so nothing is wrong about it.
        odd = Shares(image=True, common=order == "text_first", lead=False)
        expected = odd if family.name in ("paligemma", "qwen3_5") else LEVELS[0]
        assert shares == expected


def test_the_chat_template_is_the_models_own(
    family: Path, settings: Callable[..., Semantic]
) -> None:
    processor = load_processor(find_model(str(family)))
    wanted = settings(family, "image_first", template="chat", answers=[])
    if family.name == "paligemma":
        with pytest.raises(AgiqaError, match="no chat template: use a prompt set with a template"):
            vectors(ImageTextExtractor(wanted), images(1))
        return
    (ours,) = vectors(ImageTextExtractor(wanted), images(1))
    model = transformers.AutoModelForImageTextToText.from_pretrained(family).eval()
    text = chat_text(processor, PROMPTS["light"], "image_first")
    ids, states, _ = plain(model, processor, images(1)[0], text)
    for pooling, expected in pooled(states[-1], ids == model.config.image_token_id).items():
        np.testing.assert_allclose(ours[f"/light.{pooling}"], expected, atol=1e-5)


def test_a_vector_does_not_depend_on_its_batch(
    family: Path, settings: Callable[..., Semantic]
) -> None:
    chosen = settings(family, "image_first")
    together = vectors(ImageTextExtractor(chosen), images())
    alone = ImageTextExtractor(dataclasses.replace(chosen, batch_size=1))
    for image, vectors_of in zip(images(), together, strict=True):
        (single,) = vectors(alone, [image])
        for name, row in vectors_of.items():
            np.testing.assert_allclose(row, single[name], atol=1e-5)


def test_answers_equal_the_plain_forward(family: Path, settings: Callable[..., Semantic]) -> None:
    """Over the vocabulary as VQAScore has it, behind the beginning of a reply as Q-Align has it."""
    asked = settings(family, "image_first", reply="It is\n", answers_over="vocabulary")
    (ours,) = vectors(ImageTextExtractor(asked), images(1))
    model = transformers.AutoModelForImageTextToText.from_pretrained(family).eval()
    processor = load_processor(find_model(str(family)))
    text = PLAIN["image_first"].replace("{image}", placeholder(processor)) + "It is\n"
    letters = [processor.tokenizer.convert_tokens_to_ids(word[0]) for word in ANSWERS]
    for name, question in PROMPTS.items():
        asked_text = text.replace("{prompt}", question)
        _, _, logits = plain(model, processor, images(1)[0], asked_text)
        expected = torch.from_numpy(logits[-1]).softmax(dim=0)[letters].numpy()
        np.testing.assert_allclose(ours[f"answers/{name}"], expected, atol=1e-6)


def test_likelihoods_equal_the_plain_forward(
    family: Path, settings: Callable[..., Semantic]
) -> None:
    """Nats a token of the image's own prompt, and what the image adds to a blank one."""
    reply = "It is {image_prompt}"
    asked = settings(family, "image_first", reply=reply, answers="likelihood", pooling="last")
    own = ["a cat", "two dogs on a mat"]
    if family.name == "paligemma":  # its text ends in a line feed, and attends to itself both ways
        with pytest.raises(AgiqaError, match="its own tokens behind a text"):
            vectors(ImageTextExtractor(asked), images(1), own[:1])
        return
    ours = vectors(ImageTextExtractor(asked), images(2), own)
    model = transformers.AutoModelForImageTextToText.from_pretrained(family).eval()
    processor = load_processor(find_model(str(family)))
    text = PLAIN["image_first"].replace("{image}", placeholder(processor)) + "It is "
    text = text.replace("{prompt}", PROMPTS["hands"])
    for image, words, read in zip(images(2), own, ours, strict=True):
        means = []
        for shown in (image, blank(processor, image)):
            ids, _, logits = plain(model, processor, shown, text + words)
            logs = torch.from_numpy(logits[-len(words) - 1 : -1]).log_softmax(dim=1)
            means.append(logs.gather(1, torch.from_numpy(ids[-len(words) :, None])).mean())
        expected = [float(means[0]), float(means[0] - means[1])]
        np.testing.assert_allclose(read["answers/hands"], expected, atol=1e-5)
        assert abs(read["answers/hands"][1]) > 1e-4  # the image matters
