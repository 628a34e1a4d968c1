"""What the visual side of a run sees of an image: vectors of the extractor, or pixels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agiqa.runs.files import Run
from agiqa.stage1.extractors import TokenExtractor, Vector, VisionExtractor
from agiqa.stage1.ledger_rows import LedgerRows
from agiqa.stage1.one_machine import Engine, OneMachine
from agiqa.stage1.vectors import FileVectors, vectors_of_images
from agiqa.stage2.paper.pixels import Pixels, describe_pixels, open_pixels, resized
from agiqa.stage2.presets import LIGHT, TUNED
from agiqa.stage2.tuned.inputs import TunedVisual
from agiqa.store import TOKENS, Shelf
from agiqa.store.row_ids import Source


class VisualInput:
    """The visual extractor's vectors `(N, F)`."""

    def __init__(
        self, run: Run, ledger: Path | None, engine: Engine | None, opened: dict[Path, Shelf]
    ) -> None:
        self.extractor = VisionExtractor(run.params.visual)
        engine = engine or OneMachine(run.params.visual.workers, whole=False)
        self.of_files = FileVectors(self.extractor, ledger, engine, opened)

    def describe(self) -> dict[str, Any]:
        """Describe their store as a run's provenance does."""
        return {"visual": describe_vectors(self.extractor.name, self.extractor.vectors)}

    def files(self, sources: Mapping[str, Source]) -> Any:
        """Look at files by image id, through the ledger."""
        return side_by_side(self.of_files(sources))

    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        """The ids that no model has to look at."""
        return self.of_files.in_ledger(sources)

    def images(self, images: Sequence[Image.Image]) -> Any:
        """Look at images in memory."""
        return side_by_side(vectors_of_images(images, self.extractor))


class LedgerTokens:
    """Tokens of N images, read from the ledger as they are asked for."""

    def __init__(self, rows: LedgerRows, ids: Sequence[str]) -> None:
        self.rows, self.ids = rows, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, images: np.ndarray) -> np.ndarray:
        """Tokens `(n, L * C)` of the images at these places."""
        return self.rows.read([self.ids[row] for row in images])[0]


class TunedInput(VisualInput):
    """The same, and the tokens of the images."""

    def __init__(
        self, run: Run, ledger: Path | None, engine: Engine | None, opened: dict[Path, Shelf]
    ) -> None:
        super().__init__(run, ledger, engine, opened)
        self.tokens = TokenExtractor(run.params.visual, self.extractor)
        self.tokens_of_files = FileVectors(self.tokens, ledger, self.of_files.engine, opened)

    def describe(self) -> dict[str, Any]:
        """Describe both stores as a run's provenance does."""
        tokens = describe_vectors(self.tokens.name, self.tokens.vectors)
        return {**super().describe(), TOKENS: tokens}

    def files(self, sources: Mapping[str, Source]) -> TunedVisual:
        """Look at files by image id, through the ledger; their tokens stay in it."""
        rows = self.tokens_of_files.completed(sources)
        return TunedVisual(super().files(sources), LedgerTokens(rows, list(sources)))

    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        """The ids that no model has to look at."""
        return super().in_ledger(sources) & self.tokens_of_files.in_ledger(sources)

    def images(self, images: Sequence[Image.Image]) -> TunedVisual:
        """Look at images in memory."""
        (tokens,) = vectors_of_images(images, self.tokens)
        return TunedVisual(super().images(images), tokens)


class PixelInput:
    """The pixels `(N, S, S, 3)` that the paper's network takes."""

    def __init__(self, run: Run, ledger: Path | None) -> None:
        self.size, self.ledger = run.params.paper.network.image_size, ledger
        self.workers = run.params.paper.workers

    def describe(self) -> dict[str, Any]:
        """Describe their store as a run's provenance does."""
        return {"visual": describe_pixels(self.size)}

    def files(self, sources: Mapping[str, Source]) -> Pixels:
        """Look at files by image id, through the ledger."""
        files = {name: source.path for name, source in sources.items()}
        return open_pixels(files, self.size, self.ledger, self.workers)

    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        """The ids that no model has to look at: all of them."""
        return set(sources)

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Look at images in memory."""
        return np.stack([resized(image, self.size) for image in images])


def visual_input(
    run: Run, ledger: Path | None, engine: Engine | None, opened: dict[Path, Shelf]
) -> VisualInput | PixelInput:
    """What the run's preset sees; pixels are decoded in this process, whatever the engine.

    `opened` are shelves of the ledger by folder, shared with those who read the same.
    """
    if run.params.fit.preset in (LIGHT, TUNED):
        kind = VisualInput if run.params.fit.preset == LIGHT else TunedInput
        return kind(run, ledger, engine, opened)
    return PixelInput(run, ledger)


def describe_vectors(extractor: str, vectors: Sequence[Vector]) -> dict[str, Any]:
    """Describe vectors as a run's provenance does its stores."""
    return {
        "extractor": extractor,
        "names": [vector.name for vector in vectors],
        "fingerprints": [dict(vector.fingerprint) for vector in vectors],
    }


def side_by_side(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Vectors `(N, D)` side by side, in float32."""
    return np.concatenate(vectors, axis=1).astype(np.float32)
