"""Scores for new images: the one place where stage 1 meets stage 2.

A run names the extractors it was trained on; they are built again from its settings and their
fingerprints compared, field by field, before any image is scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from agiqa.checkpoints import Run, load_run
from agiqa.errors import AgiqaError
from agiqa.extraction import vectors_of_files, vectors_of_images
from agiqa.extractors import Extractor, LMMExtractor, VisionExtractor
from agiqa.features import require_same_stores
from agiqa.images import image_id


@dataclass(frozen=True)
class Score:
    """What a run says of one image."""

    image: str  # its path, or its place in the sequence
    score: float  # on the scale of the training MOS; higher is better
    spread: float  # standard deviation over the run's splits
    gate: Mapping[str, float]  # mean weight of each expert


class Scorer:
    """A run ready to score images; models load on first use."""

    def __init__(self, run: Run, ledger: Path | None = None) -> None:
        self.run = run
        self.ledger = ledger
        self.semantic = LMMExtractor(run.params.semantic)
        self.visual = VisionExtractor(run.params.visual)
        extractors: dict[str, Extractor] = {"semantic": self.semantic, "visual": self.visual}
        found = {kind: _describe(extractor) for kind, extractor in extractors.items()}
        require_same_stores(run.provenance["stores"], found)

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest MOS in training."""
        mos = self.run.provenance["mos"]
        return float(mos["low"]), float(mos["high"])

    def __call__(self, images: Sequence[Path | str | Image.Image]) -> list[Score]:
        """Score images, in the order given.

        Args:
            images: files (their vectors are cached), or RGB images in memory (not cached); not
                both in one call.

        Raises:
            AgiqaError: a file cannot be decoded, or no image is given.
        """
        if not images:
            raise AgiqaError("No images to score.")
        loaded = [image for image in images if isinstance(image, Image.Image)]
        if loaded and len(loaded) != len(images):
            raise AgiqaError("Give files or images in memory to score, not both in one call.")
        if loaded:
            names = [str(index) for index in range(len(loaded))]
            rgb = [image.convert("RGB") for image in loaded]
            semantic, visual = (vectors_of_images(rgb, e) for e in (self.semantic, self.visual))
        else:
            names = [str(image) for image in images]
            semantic, visual = self._cached([Path(name) for name in names])
        return self._predict(names, semantic, visual)

    def _cached(self, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
        """Semantic `(N, P, D)` and visual `(N, P', D')` vectors through the ledger."""
        ids = [image_id(path) for path in paths]
        files = dict(zip(ids, paths, strict=True))
        place = {name: row for row, name in enumerate(files)}
        rows = [place[name] for name in ids]
        workers = self.run.params.semantic.workers
        return tuple(  # type: ignore[return-value]
            vectors_of_files(files, extractor, self.ledger, workers)[rows]
            for extractor in (self.semantic, self.visual)
        )

    def _predict(
        self, names: Sequence[str], semantic: np.ndarray, visual: np.ndarray
    ) -> list[Score]:
        seen = visual.astype(np.float32).reshape(len(names), -1)
        prediction = self.run.ensemble.predict(seen, semantic.astype(np.float32))
        by_split = prediction.score.mean(dim=1).numpy()  # (S, N)
        gate = prediction.gate.mean(dim=(0, 1)).numpy()  # (N, E)
        spread = by_split.std(axis=0, ddof=1) if len(by_split) > 1 else np.zeros(len(names))
        experts = self.run.provenance["experts"]
        return [
            Score(
                image=name,
                score=float(by_split[:, row].mean()),
                spread=float(spread[row]),
                gate={expert: float(gate[row, e]) for e, expert in enumerate(experts)},
            )
            for row, name in enumerate(names)
        ]


def load_scorer(run: Path | str, ledger: Path | None = None) -> Scorer:
    """A scorer for the run in that folder: `load_scorer("runs/demo/grouped")(["image.png"])`.

    Raises:
        AgiqaError: no run there, or this environment makes other features than it was trained on.
    """
    return Scorer(load_run(Path(run)), ledger)


def _describe(extractor: Extractor) -> dict[str, object]:
    return {
        "extractor": extractor.name,
        "names": [vector.name for vector in extractor.vectors],
        "fingerprints": [dict(vector.fingerprint) for vector in extractor.vectors],
    }
