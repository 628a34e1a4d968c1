"""Scores for new images: the one place where stage 1 meets stage 2.

A run names the extractors it was trained on; they are built again from its settings and their
fingerprints compared, field by field, before any image is scored.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError, printable
from agiqa.data.images import BadImage, BadImagesError, as_rgb, image_id
from agiqa.runs.files import PROMPTS, Run, load_run
from agiqa.runs.fit import DATASETS
from agiqa.runs.predictions import PREDICTIONS, read_predictions
from agiqa.stage1.extract import in_ledger, vectors_of_files, vectors_of_images
from agiqa.stage1.extractors import (
    Extractor,
    SomeVectors,
    Vector,
    VisionExtractor,
    semantic_extractor,
)
from agiqa.stage2.features import choose_vectors, require_same_stores, with_answers
from agiqa.stage2.light.moe import Prediction
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.inputs import require_width, semantic_order
from agiqa.stage2.paper.pixels import Pixels, describe_pixels, open_pixels, resized
from agiqa.stage2.predictors import MIXTURE
from agiqa.store import ANSWERS, IMPORTED
from agiqa.store.row_ids import Source

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """What a run says of one image."""

    image: str  # its path, or its place in the sequence
    score: float  # on the scale of the training MOS; higher is better
    spread: float  # standard deviation over the run's splits
    gate: Mapping[str, float]  # mean weight of each expert
    # Every target of the run, the first of which is `score`; several share the experts.
    targets: Mapping[str, float] = field(default_factory=dict)
    trained_on: bool = False  # some split of the run has trained or validated on it
    # What the splits predict that had it on their test side, mean; None: evaluate knows none.
    held_out: float | None = None
    # Share of each place in the score, (h, w), mean over the splits; None for the light preset.
    quality_map: np.ndarray | None = field(default=None, repr=False, compare=False)


class LightSight:
    """What the `light` preset sees of an image: the visual extractor's vectors."""

    def __init__(self, run: Run, ledger: Path | None) -> None:
        self.extractor = VisionExtractor(run.params.visual)
        self.workers, self.ledger = run.params.visual.workers, ledger

    def describe(self) -> dict[str, object]:
        """As a run's provenance names its stores."""
        return _describe(self.extractor.name, self.extractor.vectors)

    def files(self, files: Mapping[str, Path]) -> np.ndarray:
        """Vectors `(N, F)` of files by image id, through the ledger."""
        sources = {name: Source(path) for name, path in files.items()}
        return _flat(vectors_of_files(sources, self.extractor, self.ledger, self.workers))

    def in_ledger(self, files: Mapping[str, Path]) -> set[str]:
        """The ids that no model has to look at."""
        sources = {name: Source(path) for name, path in files.items()}
        return in_ledger(sources, self.extractor, self.ledger)

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Vectors `(N, F)` of images in memory."""
        return _flat(vectors_of_images(images, self.extractor))


class PaperSight:
    """What the `paper` presets see of an image: its pixels."""

    def __init__(self, run: Run, size: int, ledger: Path | None) -> None:
        self.size, self.ledger = size, ledger
        self.workers = run.params.paper.workers

    def describe(self) -> dict[str, object]:
        """As a run's provenance names its stores."""
        return describe_pixels(self.size)

    def files(self, files: Mapping[str, Path]) -> Pixels:
        """Pixels of files by image id, through the ledger."""
        return open_pixels(files, self.size, self.ledger, self.workers)

    def in_ledger(self, files: Mapping[str, Path]) -> set[str]:
        """All ids: pixels are no model's work."""
        return set(files)

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Pixels `(N, S, S, 3)` of images in memory."""
        return np.stack([resized(image, self.size) for image in images])


class Scorer:
    """A run ready to score images; models load on first use."""

    def __init__(self, run: Run, ledger: Path | None = None) -> None:
        self.run = run
        self.ledger = ledger
        where = f"Model '{run.params.semantic.model}'"
        settings = run.params.semantic
        _require_extractor(run)
        if (run.folder / PROMPTS).is_file():  # the run's own, wherever it was fitted from
            settings = replace(settings, prompts=str(run.folder / PROMPTS))
        elif not re.fullmatch(r"[\w.-]+", settings.prompts) or settings.prompts.endswith("yaml"):
            raise AgiqaError(  # a path of whoever made the run
                f"{run.folder}: expected {PROMPTS}, found none, and semantic.prompts names no "
                f"prompt set but {settings.prompts[:80]!r}: copy the run again."
            )
        whole = semantic_extractor(settings)
        self.semantic = _wanted(whole, run, where)
        self.said = [each for each in self.semantic.vectors if each.store != ANSWERS]
        self.order = list(range(len(self.said)))  # of the semantic experts
        self.asks_image_prompt = any(each.asks_image_prompt for each in self.semantic.vectors)
        self.sight: LightSight | PaperSight
        if isinstance(run.ensemble, PaperEnsemble):
            config = run.ensemble.config
            require_width(self.said[0].width, config.semantic_width, where)
            self.order = semantic_order([each.name for each in self.said], self.order, where)
            self.sight = PaperSight(run, config.image_size, ledger)
        else:
            self.sight = LightSight(run, ledger)
        self.held_out = held_out_scores(run)
        found = {"semantic": self.said, ANSWERS: self.semantic.vectors[len(self.said) :]}
        described = {kind: _describe(whole.name, vectors) for kind, vectors in found.items()}
        described["visual"] = self.sight.describe()
        require_same_stores(run.provenance["stores"], described)

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest MOS in training."""
        mos = self.run.provenance["mos"]
        return float(mos["low"]), float(mos["high"])

    @overload  # a str is a sequence of str, too; here it is always one path
    def __call__(  # type: ignore[overload-overlap]
        self, images: Path | str | Image.Image, image_prompts: str | None = None
    ) -> Score: ...

    @overload
    def __call__(
        self,
        images: Sequence[Path | str | Image.Image],
        image_prompts: Sequence[str] | None = None,
    ) -> list[Score]: ...

    def __call__(
        self,
        images: Path | str | Image.Image | Sequence[Path | str | Image.Image],
        image_prompts: str | Sequence[str] | None = None,
    ) -> Score | list[Score]:
        """Score images, in the order given; one image alone gives its score alone.

        Args:
            images: files (their vectors are cached), or images in memory (not cached); not
                both in one call.
            image_prompts: the text that each image was generated from; needed where the run's
                prompt set asks for it (`asks_image_prompt`), otherwise of no use.

        Raises:
            BadImagesError: the run's models do not take some of the files.
            AgiqaError: a file cannot be decoded, no image or something else is given, or
                generation prompts are missing.
        """
        if isinstance(images, Path | str | Image.Image):
            prompts = [image_prompts] if isinstance(image_prompts, str) else image_prompts
            return self([images], prompts)[0]
        if isinstance(image_prompts, str):
            image_prompts = [image_prompts]
        images = list(images) if isinstance(images, Iterable) else [images]
        if not images:
            raise AgiqaError("No images to score.")
        for image in images:
            if not isinstance(image, Path | str | Image.Image):
                raise AgiqaError(
                    f"Expected paths or Pillow images to score, found {type(image).__name__}."
                )
        prompts = self._image_prompts(images, image_prompts)
        loaded = [image for image in images if isinstance(image, Image.Image)]
        if loaded and len(loaded) != len(images):
            raise AgiqaError("Give files or images in memory to score, not both in one call.")
        if loaded:
            names = [str(index) for index in range(len(loaded))]
            rgb = [as_rgb(image) for image in loaded]
            semantic = vectors_of_images(rgb, self.semantic, prompts)
            found = self._predict(semantic, self.sight.images(rgb))
            return [self._score(name, row, found) for row, name in enumerate(names)]
        paths = [Path(image) for image in images if not isinstance(image, Image.Image)]
        ids = [image_id(path) for path in paths]
        files = dict(zip(ids, paths, strict=True))
        workers = self.run.params.semantic.workers
        by_id = _by_id(paths, ids, prompts) if prompts else {}
        sources = {name: Source(path, by_id.get(name)) for name, path in files.items()}
        semantic = vectors_of_files(sources, self.semantic, self.ledger, workers)
        found = self._predict(semantic, self.sight.files(files))
        place = {name: row for row, name in enumerate(files)}
        return [
            self.marked(self._score(str(path), place[name], found), name)
            for path, name in zip(images, ids, strict=True)
        ]

    def marked(self, score: Score, image_id: str) -> Score:
        """The score of an image by its id, with what the run's training knew of it."""
        known, held_out = image_id in self.run.images, self.held_out.get(image_id)
        return replace(score, trained_on=known, held_out=held_out)

    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        """The images, of those by id, that an extractor need not look at again."""
        files = {name: source.path for name, source in sources.items()}
        return in_ledger(sources, self.semantic, self.ledger) & self.sight.in_ledger(files)

    def score_good(
        self, files: Sequence[Path], image_prompts: Sequence[str] | None = None
    ) -> tuple[list[Score], list[BadImage]]:
        """Score files but for those that the run's models do not take: these, with the reasons.

        As calling the scorer, which gives up where there is one; the vectors of all others are
        made first either way.
        """
        prompts: Sequence[str | None] = image_prompts or [None] * len(files)
        kept, bad = list(zip(files, prompts, strict=True)), list[BadImage]()
        while kept:
            given = [prompt for _, prompt in kept if prompt is not None]
            try:
                return self([file for file, _ in kept], given or None), bad
            except BadImagesError as error:
                bad += error.bad
                lost = {image.path for image in bad}
                before = len(kept)
                kept = [(file, prompt) for file, prompt in kept if printable(file) not in lost]
                if len(kept) == before:
                    raise
        return [], bad

    def _image_prompts(
        self, images: Sequence[object], image_prompts: Sequence[str] | None
    ) -> list[str] | None:
        """The generation prompts that the run needs: one for each image, or None."""
        if not self.asks_image_prompt:
            if image_prompts:
                log.warning("The run's prompt set does not ask for the images' generation prompts.")
            return None
        if not image_prompts or not all(prompt.strip() for prompt in image_prompts):
            raise AgiqaError(
                f"The run's prompt set '{self.run.params.semantic.prompts}' asks for the text that "
                "an image was generated from: give --image-prompt TEXT (in Python image_prompts, "
                "one for each image)."
            )
        if len(image_prompts) != len(images):
            raise AgiqaError(
                f"Expected one generation prompt for each of {len(images)} images, found "
                f"{len(image_prompts)}."
            )
        return list(image_prompts)

    def _predict(self, semantic: Sequence[np.ndarray], visual: Any) -> Prediction:
        """Score `(S, N, T)`, gate `(N, E)` and quality map `(N, h, w)` of N distinct images.

        The gate is the first target's.

        Args:
            semantic: the vectors `(N, D)`, then the answers' probabilities `(N, K)` if there are.
            visual: what `sight` sees.
        """
        vectors = [np.asarray(each, dtype=np.float32) for each in semantic]
        ours = np.stack([vectors[place] for place in self.order], axis=1)
        if len(vectors) > len(self.said):
            ours = with_answers(ours, np.stack(vectors[len(self.said) :], axis=1))
        found = self.run.ensemble.predict(visual, ours)
        if not found.score.isfinite().all():
            raise AgiqaError(
                f"{self.run.folder}: the scores come to no numbers: the images' vectors hold NaN "
                "or infinity (`agiqa cache verify --repair`), or the run's weights are too large "
                "for them (run `agiqa fit` again)."
            )
        quality_map = None if found.quality_map is None else found.quality_map.mean(dim=(0, 1))
        return Prediction(found.score.mean(dim=1), found.gate[..., 0].mean(dim=(0, 1)), quality_map)

    def _score(self, name: str, row: int, found: Prediction) -> Score:
        by_split = found.score[:, row, 0].numpy()
        every = found.score[:, row].mean(dim=0).tolist()
        experts = self.run.provenance["experts"]
        return Score(
            image=name,
            score=float(by_split.mean()),
            spread=float(by_split.std(ddof=1)) if len(by_split) > 1 else 0.0,
            gate=dict(zip(experts, found.gate[row].tolist(), strict=True)),
            targets=dict(zip(self.run.provenance["targets"], every, strict=True)),
            quality_map=None if found.quality_map is None else found.quality_map[row].numpy(),
        )


def held_out_scores(run: Run) -> dict[str, float]:
    """What the mixture predicts of images on test sides, by id, mean over their splits.

    Out of the predictions that `evaluate` wrote beside the run and for its further data sets.

    Raises:
        AgiqaError: predictions.csv is damaged.
    """
    folders = [run.folder, *sorted((run.folder / DATASETS).glob("*"))]
    scores: dict[str, float] = {}
    for folder in folders:
        if (folder / PREDICTIONS).is_file():
            frame = read_predictions(folder, ("image_id",))
            mixture = frame[frame["model"] == MIXTURE]
            means = mixture.groupby("image_id")["score"].mean()
            scores |= {str(name): float(score) for name, score in means.items()}
    return scores


def load_scorer(run: Path | str, ledger: Path | None = None, remote_code: str = "") -> Scorer:
    """A scorer for the run in that folder: `load_scorer("runs/demo/grouped")(["image.png"])`.

    Args:
        run: its folder.
        ledger: where vectors of files are kept; by default `feature_store.default_root()`.
        remote_code: `MODEL@DIGEST`, which lets the run's model run just that Python of its own;
            the refusal of a model that needs it says what to give.

    Raises:
        AgiqaError: no run there, or this environment makes other features than it was trained on.
    """
    return Scorer(load_run(Path(run), remote_code), ledger)


def score(
    images: Path | str | Image.Image | Sequence[Path | str | Image.Image],
    run: Run | Path | str,
    *,
    image_prompts: str | Sequence[str] | None = None,
    remote_code: str = "",
) -> list[Score]:
    """Score new images with a run, in the order given: `score("a.png", run)[0].score`.

    Args:
        images: an image or several: files, whose vectors are cached, or images in memory.
        run: a run or its folder; `load_scorer` keeps its models loaded between calls.
        image_prompts: the text that each image was generated from, for runs that ask for it.
        remote_code: `MODEL@DIGEST`, as `load_scorer` takes it.

    Raises:
        AgiqaError: no run, another environment than it was fitted in, an image that cannot be
            scored.
    """
    scorer = load_scorer(run.folder if isinstance(run, Run) else run, remote_code=remote_code)
    several = [images] if isinstance(images, Path | str | Image.Image) else images
    return scorer(several, [image_prompts] if isinstance(image_prompts, str) else image_prompts)


def _require_extractor(run: Run) -> None:
    """Refuse runs whose vectors nothing here can make of a new image."""
    prints = run.provenance["stores"]["semantic"]["fingerprints"]
    if any(each.get("extractor") == IMPORTED for each in prints):
        raise AgiqaError(
            f"{run.folder}: fitted on vectors that were imported (agiqa cache import-pt), and what "
            f"made them is known by name only (model: {prints[0].get('model')}), so new images "
            "cannot be scored: fit on vectors of `agiqa extract` for that."
        )


def _wanted(extractor: Extractor, run: Run, where: str) -> Extractor:
    """The extractor with the vectors that the run reads: semantic ones, then answers."""
    stores = [vector.store for vector in extractor.vectors]
    said = [place for place, store in enumerate(stores) if store != ANSWERS]
    names = [extractor.vectors[place].name for place in said]
    wanted = [said[place] for place in choose_vectors(names, run.params.fit.vectors, where)]
    if run.params.fit.answers:
        wanted += [place for place, store in enumerate(stores) if store == ANSWERS]
    return SomeVectors(extractor, wanted)


def _by_id(paths: Sequence[Path], ids: Sequence[str], prompts: Sequence[str]) -> dict[str, str]:
    """Generation prompts by image id."""
    found: dict[str, str] = {}
    for path, name, prompt in zip(paths, ids, prompts, strict=True):
        if found.setdefault(name, prompt) != prompt:
            raise AgiqaError(
                f"{path}: the same image is given twice with different generation prompts; score "
                "it once for each."
            )
    return found


def _flat(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Vectors `(N, D)` side by side, in float32."""
    return np.concatenate(vectors, axis=1).astype(np.float32)


def _describe(extractor: str, vectors: Sequence[Vector]) -> dict[str, object]:
    return {
        "extractor": extractor,
        "names": [vector.name for vector in vectors],
        "fingerprints": [dict(vector.fingerprint) for vector in vectors],
    }
