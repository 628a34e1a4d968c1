"""Extractors: models that turn an image into vectors worth keeping. Stage 1 of the pipeline."""

from agiqa.extractors.contract import Extractor, Vector
from agiqa.extractors.lmm import LMMExtractor
from agiqa.extractors.vision import VisionExtractor

__all__ = ["Extractor", "LMMExtractor", "Vector", "VisionExtractor"]
