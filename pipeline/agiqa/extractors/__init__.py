"""Extractors: models that turn an image into vectors worth keeping. Stage 1 of the pipeline."""

import json

from agiqa.errors import AgiqaError
from agiqa.extractors.contract import Extractor, Vector
from agiqa.extractors.lmm import LMMExtractor
from agiqa.extractors.loading import ModelFolder, find_model
from agiqa.extractors.mplug_owl2 import MplugOwl2Extractor
from agiqa.extractors.some_vectors import SomeVectors
from agiqa.extractors.vision import VisionExtractor
from agiqa.params import Semantic

__all__ = [
    "Extractor",
    "LMMExtractor",
    "MplugOwl2Extractor",
    "SomeVectors",
    "Vector",
    "VisionExtractor",
    "semantic_extractor",
]


def semantic_extractor(settings: Semantic) -> Extractor:
    """The extractor for the model that `settings.model` names, by its configuration.

    Raises:
        AgiqaError: no such model, or its configuration cannot be read.
    """
    kind = _model_type(find_model(settings.model))
    return MplugOwl2Extractor(settings) if kind == "mplug_owl2" else LMMExtractor(settings)


def _model_type(folder: ModelFolder) -> str:
    path = folder.path / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("model_type"))
    except (OSError, ValueError, AttributeError) as error:
        raise AgiqaError(f"{path}: not a model's configuration; copy it again.") from error
