"""Extractors: models that turn an image into vectors worth keeping. Stage 1 of the pipeline."""

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, require_choices
from agiqa.data.prompts import PromptSet
from agiqa.stage1.extractors.contract import (
    Extractor,
    Recipe,
    Sample,
    Vector,
    VectorSubset,
    asks_image_prompt,
)
from agiqa.stage1.extractors.dual_encoder import DualEncoderExtractor
from agiqa.stage1.extractors.image_text import ImageTextExtractor
from agiqa.stage1.extractors.loading import MissingModelError, find_model
from agiqa.stage1.extractors.remote_code import read_config, trust
from agiqa.stage1.extractors.vision import TokenExtractor, VisionExtractor

__all__ = [
    "DualEncoderExtractor",
    "Extractor",
    "ImageTextExtractor",
    "MissingModelError",
    "Recipe",
    "Sample",
    "TokenExtractor",
    "Vector",
    "VectorSubset",
    "VisionExtractor",
    "asks_image_prompt",
    "semantic_extractor",
]

DUAL = ("clip", "siglip", "siglip2")


def semantic_extractor(settings: Semantic, prompt_set: PromptSet | None = None) -> Extractor:
    """Make the extractor for the model that `settings.model` names, by its configuration.

    `prompt_set` is asked instead of the one that `settings.prompts` names.

    Raises:
        AgiqaError: a setting is out of choice; no such model, its configuration cannot be read, or
            it is of another kind.
    """
    require_choices("semantic", settings, "the extractor's settings")
    folder = find_model(settings.model, settings.revision)
    kind = str(read_config(folder.path).get("model_type"))
    if kind == "mplug_owl2":
        from agiqa.stage1.mplug_owl2.extractor import MplugOwl2Extractor

        return MplugOwl2Extractor(settings, prompt_set)
    if kind in DUAL:
        return DualEncoderExtractor(settings, prompt_set)
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and not trust(folder.path, settings):
        raise AgiqaError(
            f"Model '{folder.name}' is a {kind}, which takes no image and text: use an image-text "
            "model (`agiqa extractors` lists some), CLIP or SigLIP."
        )
    return ImageTextExtractor(settings, prompt_set)
