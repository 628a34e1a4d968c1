"""Every family's own processor, without torchvision: its features and ids are the whole call's."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.stage1.extractors.identity import ModelFolder
from agiqa.stage1.extractors.lmm.inputs import chat_text, image_features, placeholder, token_ids
from agiqa.stage1.extractors.loading import load_processor
from kit.families import DUAL_ENCODERS, LMMS

WHOLE = ("llava", "idefics3", "gemma3", "paligemma")  # AutoProcessor builds these as well
PLACEHOLDERS = {
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_5": "<|vision_start|><|image_pad|><|vision_end|>",
    "internvl": "<IMG_CONTEXT>",
    "gemma3": "<start_of_image>",
}
IMAGES_FIRST = ("llava", "llava_onevision")
BUDGETS = {  # family: tokens of 90 x 50 px without a budget, the budget, and tokens within it
    "qwen2_5_vl": (6, 28 * 28 * 3, 2),
    "qwen3_vl": (6, 32 * 32 * 3, 2),
    "llava_onevision": (52, 32 * 32, 16 + 2 * (4 + 1)),
    "smolvlm": (20, 40 * 40, 4),
    "idefics3": (20, 40 * 40, 4),
}

Load = Callable[[str], Any]


@pytest.fixture
def load(family_folder: Callable[[str], Path]) -> Load:
    return lambda family: load_processor(ModelFolder(family, family_folder(family)))


@pytest.fixture
def changed(family_folder: Callable[[str], Path], tmp_path: Path) -> Callable[..., ModelFolder]:
    """A copy of a family's folder, to be spoilt: its files with keys changed, None to drop it."""

    def copy(family: str, **files: dict[str, Any] | None) -> ModelFolder:
        folder = tmp_path / family
        shutil.copytree(family_folder(family), folder)
        for stem, keys in files.items():
            path = folder / f"{stem}.json"
            if keys is None:
                path.unlink(missing_ok=True)
            else:
                tree = json.loads(path.read_text()) | keys
                path.write_text(json.dumps({k: v for k, v in tree.items() if v is not None}))
        return ModelFolder(family, folder)

    return copy


def picture(width: int = 90, height: int = 50, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def inputs(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in arrays.items() if not k.startswith("_")}


def image_tokens(processor: Any, arrays: dict[str, np.ndarray], folder: Path) -> int:
    config = transformers.AutoConfig.from_pretrained(folder)
    ids = token_ids(processor, arrays, placeholder(processor))["input_ids"]
    return int((ids == config.image_token_id).sum())


@pytest.mark.parametrize("family", [*LMMS, *DUAL_ENCODERS])
def test_the_parts_are_the_folders_own(
    family: str, load: Load, family_folder: Callable[[str], Path]
) -> None:
    processor = load(family)
    stated = json.loads((family_folder(family) / "processor_config.json").read_text())
    assert type(processor).__name__ == stated.pop("processor_class")
    assert type(processor).__module__.startswith("transformers.")
    assert {name: getattr(processor, name) for name in stated} == stated
    assert type(processor.image_processor).__name__.endswith("Pil")
    assert processor.to_dict()["image_processor"] == processor.image_processor.to_dict()


@pytest.mark.parametrize("size", [(90, 50), (40, 40), (20, 70)])
@pytest.mark.parametrize("family", LMMS)
def test_features_and_ids_equal_the_whole_call(
    family: str, size: tuple[int, int], load: Load, family_folder: Callable[[str], Path]
) -> None:
    processor, image = load(family), picture(*size)
    text = f"See {placeholder(processor)} and judge it."
    features = image_features(processor, image)
    ids = token_ids(processor, features, text)
    folder = family_folder(family)
    plain = transformers.AutoProcessor.from_pretrained(folder) if family in WHOLE else processor
    options = {"crop_to_patches": False} if family == "internvl" else {}
    expected = plain(images=[image], text=[text], return_tensors="pt", images_kwargs=options)
    ours = inputs(features) | {name: torch.from_numpy(ids_of)[None] for name, ids_of in ids.items()}
    assert set(ours) == set(expected) - {"attention_mask", "labels"}
    for name, array in ours.items():
        assert array.dtype == (torch.float32 if name == "pixel_values" else torch.int64)
        torch.testing.assert_close(array, expected[name].to(array.dtype), rtol=0, atol=0)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.inference_mode():  # raises where the image's tokens are not as many as its features
        states = model.model(**ours).last_hidden_state
    assert states.shape[1] == len(ids["input_ids"])


@pytest.mark.parametrize("family", LMMS)
def test_a_processor_survives_the_way_into_a_worker(family: str, load: Load) -> None:
    processor = load(family)
    again = pickle.loads(pickle.dumps(processor))
    features = image_features(processor, picture())
    text = f"Hm. {placeholder(processor)}"
    ours, revived = token_ids(processor, features, text), token_ids(again, features, text)
    np.testing.assert_array_equal(ours["input_ids"], revived["input_ids"])
    np.testing.assert_array_equal(
        features["pixel_values"], image_features(again, picture())["pixel_values"]
    )


@pytest.mark.parametrize("family", DUAL_ENCODERS)
def test_dual_encoders_take_the_image_alone(
    family: str, load: Load, family_folder: Callable[[str], Path]
) -> None:
    features = image_features(load(family), picture())
    model = transformers.AutoModel.from_pretrained(family_folder(family)).eval()
    with torch.inference_mode():
        vectors = model.get_image_features(**inputs(features)).pooler_output
    assert vectors.shape == (1, 12 if family == "clip" else 16)


@pytest.mark.parametrize("family", LMMS)
def test_placeholders(family: str, load: Load) -> None:
    assert placeholder(load(family)) == PLACEHOLDERS.get(family, "<image>")


@pytest.mark.parametrize("order", ["text_first", "image_first"])
@pytest.mark.parametrize("family", [each for each in LMMS if each != "paligemma"])
def test_chat_templates(family: str, order: str, load: Load) -> None:
    processor = load(family)
    if family in IMAGES_FIRST and order == "text_first":
        with pytest.raises(AgiqaError, match=r"always gives image_first, .* asks for text_first"):
            chat_text(processor, "Sharp?", order)
        return
    text = chat_text(processor, "Sharp?", order)
    image = text.find(placeholder(processor))
    assert (image < text.find("Sharp?")) == (order == "image_first")
    assert image > 0
    assert text.rstrip().endswith(("assistant", "ASSISTANT:", "Assistant:", "model"))
    ids = token_ids(processor, image_features(processor, picture()), text)["input_ids"]
    bos = processor.tokenizer.bos_token_id
    assert bos is None or (ids == bos).sum() == 1


def test_without_a_chat_template(load: Load) -> None:
    with pytest.raises(AgiqaError, match=r"PaliGemmaProcessor has no chat template: use a prompt"):
        chat_text(load("paligemma"), "Sharp?", "image_first")


def test_a_tokenizers_chat_template_serves_where_it_shows_the_image(load: Load) -> None:
    processor = load("qwen3_vl")
    expected = chat_text(processor, "Sharp?", "text_first")
    template, processor.chat_template = processor.chat_template, None
    processor.tokenizer.chat_template = template
    assert chat_text(processor, "Sharp?", "text_first") == expected
    processor.tokenizer.chat_template = "{% for m in messages %}user: Sharp?{% endfor %}"
    with pytest.raises(AgiqaError, match="leaves out the image: use a prompt set"):
        chat_text(processor, "Sharp?", "text_first")
    processor.tokenizer.chat_template = "{{ raise_exception('text only') }}"
    with pytest.raises(AgiqaError, match=r"does not take one turn with an image: text only\. Use"):
        chat_text(processor, "Sharp?", "text_first")


def test_internvl_crops_as_its_checkpoint_says(
    load: Load, changed: Callable[..., ModelFolder], family_folder: Callable[[str], Path]
) -> None:
    whole = load("internvl")
    assert len(whole(images=[picture()], text=["<IMG_CONTEXT>"])["pixel_values"]) == 3
    assert image_features(whole, picture())["pixel_values"].shape[0] == 1
    folder = changed("internvl", preprocessor_config={"crop_to_patches": True})
    crops = load_processor(folder)
    features = image_features(crops, picture())
    assert features["pixel_values"].shape[0] == 3  # two tiles and a thumbnail
    assert image_tokens(crops, features, folder.path) == 3 * 4
    assert image_features(crops, picture(), 32 * 32)["pixel_values"].shape[0] == 1


@pytest.mark.parametrize("family", BUDGETS)
def test_a_pixel_budget_saves_tokens(
    family: str, load: Load, family_folder: Callable[[str], Path]
) -> None:
    processor, folder = load(family), family_folder(family)
    before, budget, after = BUDGETS[family]
    assert image_tokens(processor, image_features(processor, picture()), folder) == before
    features = image_features(processor, picture(), budget)
    assert image_tokens(processor, features, folder) == after
    ids = token_ids(processor, features, f"Hm. {placeholder(processor)}")
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.inference_mode():
        model.model(**inputs(features), **{k: torch.from_numpy(v)[None] for k, v in ids.items()})


@pytest.mark.parametrize("size", [(90, 50), (300, 200)])
def test_a_pixel_budget_never_enlarges(size: tuple[int, int], load: Load) -> None:
    for family in (*BUDGETS, "siglip2_naflex"):
        processor = load(family)
        free, bound = (image_features(processor, picture(*size), most) for most in (None, 10**9))
        np.testing.assert_array_equal(free["pixel_values"], bound["pixel_values"])


def test_naflex_patches_within_a_pixel_budget(load: Load) -> None:
    features = image_features(load("siglip2_naflex"), picture(), 8 * 8 * 6)
    assert features["spatial_shapes"].prod() <= features["pixel_values"].shape[1] == 6


def test_a_pixel_budget_for_a_fixed_size(load: Load) -> None:
    for family in ("llava", "gemma3", "paligemma", "clip", "siglip2"):
        with pytest.raises(AgiqaError, match=r"expects a model of dynamic resolution, but .*Pil"):
            image_features(load(family), picture(), 10_000)


@pytest.mark.parametrize("count", [0, 2])
def test_a_text_holds_one_image(count: int, load: Load) -> None:
    processor = load("llava")
    features = image_features(processor, picture())
    with pytest.raises(AgiqaError, match=f"one image placeholder '<image>', found {count} in"):
        token_ids(processor, features, "See" + count * "<image>")


def test_the_layout_that_save_pretrained_writes(load: Load, tmp_path: Path) -> None:
    processor = load("gemma3")
    processor.save_pretrained(tmp_path)  # the image processor nested in processor_config.json
    again = load_processor(ModelFolder("again", tmp_path))
    assert again.to_dict() == processor.to_dict()
    assert again.chat_template == processor.chat_template


def test_a_class_is_known_by_the_model_where_no_file_names_it(
    changed: Callable[..., ModelFolder],
) -> None:
    folder = changed("clip", processor_config=None)
    assert type(load_processor(folder)).__name__ == "CLIPProcessor"


@pytest.mark.parametrize(("kind", "visual_tokens"), [("AyaVision", 4), ("Llava", 16)])
def test_a_folder_of_tokenizer_and_image_processor_alone(
    kind: str, visual_tokens: int, build_lmm: Callable[..., Path], tmp_path: Path
) -> None:
    folder = build_lmm(tmp_path / "model", kind, bos=True)  # as nano's
    processor = load_processor(ModelFolder("model", folder))
    features = image_features(processor, picture())
    assert image_tokens(processor, features, folder) == visual_tokens
    ids = token_ids(processor, features, "Hm. <image> Sharp?")["input_ids"]
    assert ids[0] == processor.tokenizer.bos_token_id
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.inference_mode():
        model.model(input_ids=torch.from_numpy(ids)[None], **inputs(features))


def test_an_unknown_processor(changed: Callable[..., ModelFolder]) -> None:
    folder = changed("llava", processor_config={"processor_class": "OctopusProcessor"})
    with pytest.raises(AgiqaError, match=r"'llava': transformers [\d.]+ has no processor Octopus"):
        load_processor(folder)


def test_a_processor_of_remote_code(changed: Callable[..., ModelFolder]) -> None:
    keys = {"processor_class": "Octopus", "auto_map": {"AutoProcessor": "octopus.Octopus"}}
    with pytest.raises(AgiqaError, match="no processor Octopus; it needs remote code"):
        load_processor(changed("llava", processor_config=keys))


def test_a_model_that_is_not_image_text(tmp_path: Path) -> None:
    transformers.LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(AgiqaError, match="no processor for llama; is it an image-text model"):
        load_processor(ModelFolder("text", tmp_path))


def test_missing_and_damaged_parts(changed: Callable[..., ModelFolder]) -> None:
    with pytest.raises(AgiqaError, match="'gemma3' has no usable image processor"):
        load_processor(changed("gemma3", preprocessor_config=None))
    # transformers would make one up, and the vectors would be wrong without a word
    with pytest.raises(AgiqaError, match="'llava' has no tokenizer: expected one of"):
        load_processor(changed("llava", tokenizer=None, tokenizer_config=None))
    with pytest.raises(
        AgiqaError, match=r"InternVLProcessor cannot be put together: .*image_token"
    ):
        load_processor(changed("internvl", tokenizer_config={"context_image_token": None}))
    damaged = changed("smolvlm")
    (damaged.path / "chat_template.json").write_text("{")
    with pytest.raises(AgiqaError, match="SmolVLMProcessor cannot be put together"):
        load_processor(damaged)
    damaged = changed("paligemma")
    (damaged.path / "preprocessor_config.json").write_text("{")
    with pytest.raises(AgiqaError, match=r"preprocessor_config\.json: not readable as JSON"):
        load_processor(damaged)
