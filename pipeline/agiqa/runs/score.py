"""Scores for new images: the one place where stage 1 meets stage 2.

A run names the extractors it was trained on; they are built again from its settings and their
fingerprints compared, field by field, before any image is scored. What its visual side sees of an
image are vectors of the extractor, tokens beside them, or pixels.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params
from agiqa.data.named_yaml import bundled_folder
from agiqa.runs.files import DATASETS, Run, load_run, prompt_set_of, require_extractor
from agiqa.runs.image_scorer import ImageScorer
from agiqa.runs.records import mean_predictions
from agiqa.stage1.extractors import (
    Extractor,
    TokenExtractor,
    Vector,
    VectorSubset,
    VisionExtractor,
    asks_image_prompt,
    semantic_extractor,
)
from agiqa.stage1.extractors.image_text import shared_tower
from agiqa.stage1.ledger_rows import LedgerRows
from agiqa.stage1.one_machine import Engine, OneMachine
from agiqa.stage1.vectors import FileVectors, vectors_of_images
from agiqa.stage2.features import choose_vectors, require_same_stores, with_answers
from agiqa.stage2.paper.inputs import Pixels, describe_pixels, open_pixels, resized
from agiqa.stage2.presets import RECIPES, TUNED
from agiqa.stage2.tuned.inputs import TunedVisual
from agiqa.store import ANSWERS, TOKENS, Shelf
from agiqa.store.row_ids import Source

SCORERS, DEFAULT = "scorers", "agiqa-3k"  # the folder of scorers, and in it the one that is a run

NANO = "nano"  # the embedded model, which agiqa assembles itself
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """What a run says of one image."""

    image: str  # its path, or its place in the sequence
    score: float  # on the scale of the training MOS; higher is better
    low: float | None  # prediction interval of 90 %; None where no held-out errors are known
    high: float | None
    disagreement: float | None  # standard deviation over the run's splits; None: one model alone
    gate: Mapping[str, float]  # mean weight of each expert
    # Every target of the run, the first of which is `score`; several share the experts.
    targets: Mapping[str, float] = field(default_factory=dict)
    trained_on: bool = False  # some split of the run has trained or validated on it
    # What the splits predict that had it on their test side, mean; None: evaluate knows none.
    held_out: float | None = None
    # Of the image's row in a table or shard: its prompt, and columns that were asked for.
    columns: Mapping[str, str | int | float] = field(default_factory=dict)
    # Share of each place in the score, (h, w), mean over the splits; None for the light preset.
    quality_map: np.ndarray | None = field(default=None, repr=False, compare=False)


class LedgerTokens:
    """Tokens of N images, read from the ledger as they are asked for."""

    def __init__(self, rows: LedgerRows, ids: Sequence[str]) -> None:
        self.rows, self.ids = rows, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, images: np.ndarray) -> np.ndarray:
        """Tokens `(n, L * C)` of the images at these places."""
        return self.rows.read([self.ids[row] for row in images])[0]


class VisualInput:
    """The visual extractor's vectors `(N, F)` of images, and their tokens, where the run takes any.

    `opened` are shelves of the ledger by folder, shared with those who read the same.
    """

    def __init__(
        self, run: Run, ledger: Path | None, engine: Engine | None, opened: dict[Path, Shelf]
    ) -> None:
        self.extractor = VisionExtractor(run.params.visual)
        self.stores = {"visual": describe_vectors(self.extractor.name, self.extractor.vectors)}
        engine = engine or OneMachine(run.params.visual.workers, whole=False)
        self.of_files = FileVectors(self.extractor, ledger, engine, opened)
        self.tokens: TokenExtractor | None = None
        if run.params.fit.preset == TUNED:
            self.tokens = TokenExtractor(run.params.visual, self.extractor)
            self.stores[TOKENS] = describe_vectors(self.tokens.name, self.tokens.vectors)
            self.tokens_of_files = FileVectors(self.tokens, ledger, engine, opened)

    def files(self, sources: Mapping[str, Source]) -> np.ndarray | TunedVisual:
        """Look at files by image id, through the ledger; their tokens stay in it."""
        if self.tokens is None:
            return side_by_side(self.of_files(sources))
        tokens = LedgerTokens(self.tokens_of_files.completed(sources), list(sources))
        return TunedVisual(side_by_side(self.of_files(sources)), tokens)

    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        """The ids that no model has to look at."""
        known = self.of_files.in_ledger(sources)
        return known & self.tokens_of_files.in_ledger(sources) if self.tokens else known

    def images(self, images: Sequence[Image.Image]) -> np.ndarray | TunedVisual:
        """Look at images in memory."""
        if self.tokens is None:
            return side_by_side(vectors_of_images(images, self.extractor))
        (tokens,) = vectors_of_images(images, self.tokens)
        return TunedVisual(side_by_side(vectors_of_images(images, self.extractor)), tokens)


class PixelInput:
    """The pixels `(N, S, S, 3)` that the paper's network takes, decoded in this process."""

    def __init__(self, run: Run, ledger: Path | None) -> None:
        self.size, self.ledger = run.params.paper.network.image_size, ledger
        self.stores = {"visual": describe_pixels(self.size)}
        self.workers = run.params.paper.workers

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


class Scorer(ImageScorer):
    """A run ready to score images; models load on first use."""

    def __init__(self, run: Run, ledger: Path | None = None, engine: Engine | None = None) -> None:
        self.run, self.ledger, self.provenance = run, ledger, run.provenance
        shipped = run.folder.resolve() == default_run().resolve()
        self.label = f"{run.name}, shipped with agiqa" if shipped else run.name
        self.title = f"The run's prompt set '{run.params.semantic.prompts}'"
        require_extractor(run)
        where = f"Model '{run.params.semantic.model}'"
        whole = semantic_extractor(replace(run.params.semantic, prompts=prompt_set_of(run)))
        self.semantic = _wanted(whole, run, where)
        vectors = self.semantic.vectors
        self.vectors = [v for v in vectors if v.store != ANSWERS]  # the answers follow
        self.asks_image_prompt = asks_image_prompt(vectors)
        names, width = [made.name for made in self.vectors], self.vectors[0].width
        self.order = run.ensemble.semantic_order(names, width, where)
        opened: dict[Path, Shelf] = {}  # which the engine fills at once for both
        self.visual: VisualInput | PixelInput = (
            PixelInput(run, ledger)
            if run.params.fit.preset in RECIPES
            else VisualInput(run, ledger, engine, opened)
        )
        self.several = _with_visual(whole, self.semantic.indices, self.visual)
        self.engine = engine or OneMachine(run.params.semantic.workers, self.several, whole=False)
        self.semantic_of_files = FileVectors(self.semantic, ledger, self.engine, opened)
        self.held_out = held_out_scores(run)
        described = {
            "semantic": describe_vectors(whole.name, self.vectors),
            ANSWERS: describe_vectors(whole.name, vectors[len(self.vectors) :]),
            **self.visual.stores,
        }
        trained = run.provenance["stores"]
        if "published" in run.provenance:
            trained = _with_own_libraries(trained, described, run.params)
        require_same_stores(trained, described)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be made again from the run's folder, in another process; models are no part of it."""
        code = self.run.params.semantic.remote_code
        return _of_folder, (self.run.folder.resolve(), code, self.ledger)

    def score_loaded(
        self, images: Sequence[Image.Image], image_prompts: Sequence[str] | None
    ) -> list[Score]:
        """Score images in memory, with the generation prompts that the run asks for."""
        vectors = vectors_of_images(images, self.several or self.semantic, image_prompts)
        count = len(self.semantic.vectors)
        visual = side_by_side(vectors[count:]) if self.several else self.visual.images(images)
        names = [str(index) for index in range(len(images))]
        return self._scores(names, vectors[:count], visual)

    def score_sources(self, sources: Mapping[str, Source]) -> dict[str, Score]:
        """Score images by row id, in order, through the ledger; for who has hashed or decoded them.

        Raises:
            BadImagesError: the run's models do not take some of them.
        """
        semantic = self.semantic_of_files(sources)
        scores = self._scores(list(sources), semantic, self.visual.files(sources))
        return {
            name: self.marked(score, sources[name].image_id)
            for name, score in zip(sources, scores, strict=True)
        }

    def marked(self, score: Score, image_id: str) -> Score:
        """The score of an image by its id, with what the run's training knew of it."""
        known, held_out = image_id in self.run.images, self.held_out.get(image_id)
        return replace(score, trained_on=known, held_out=held_out)

    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        """The images, of those by row id, that an extractor need not look at again."""
        return self.semantic_of_files.in_ledger(sources) & self.visual.in_ledger(sources)

    def ordered(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """An extractor's vectors `(N, D)`, then answers' `(N, K)`, as the run takes them.

        Returns:
            `(N, P, D)` float32, in the order of the experts.
        """
        single = [np.asarray(part, dtype=np.float32) for part in vectors]
        semantic = np.stack([single[index] for index in self.order], axis=1)
        answers = single[len(self.vectors) :]
        return with_answers(semantic, np.stack(answers, axis=1)) if answers else semantic

    def _scores(
        self, names: Sequence[str], vectors: Sequence[np.ndarray], visual: Any
    ) -> list[Score]:
        """Scores of N distinct images, by their semantic vectors and what `visual` sees."""
        prediction = self.run.ensemble.predict(visual, self.ordered(vectors))
        if not prediction.score.isfinite().all():
            raise AgiqaError(
                f"{self.run.folder}: the scores come to no numbers: the images' vectors hold NaN "
                "or infinity (`agiqa cache verify --repair`), or the run's weights are too large "
                "for them (run `agiqa fit` again)."
            )
        about, maps = self.run.provenance, prediction.quality_map
        unknown = np.full(len(names), np.inf)  # as where too few errors are known for an interval
        ends = self.run.ensemble.intervals(prediction.score) or (unknown, unknown)
        low, high = ([float(end) if np.isfinite(end) else None for end in part] for part in ends)
        gate = prediction.gate[..., 0].mean(dim=0)  # (N, E), the first target's
        maps = None if maps is None else maps.mean(dim=0)  # (N, h, w)
        scores = []
        for row, name in enumerate(names):
            by_split = prediction.score[:, row, 0].numpy()
            of_targets = prediction.score[:, row].mean(dim=0).tolist()
            scores.append(
                Score(
                    image=name,
                    score=float(by_split.mean()),
                    low=low[row],
                    high=high[row],
                    disagreement=float(by_split.std(ddof=1)) if len(by_split) > 1 else 0.0,
                    gate=dict(zip(about["experts"], gate[row].tolist(), strict=True)),
                    targets=dict(zip(about["targets"], of_targets, strict=True)),
                    quality_map=None if maps is None else maps[row].numpy(),
                )
            )
        return scores


def _of_folder(folder: Path, remote_code: str, ledger: Path | None) -> Scorer:
    return Scorer(load_run(folder, remote_code), ledger)


def held_out_scores(run: Run) -> dict[str, float]:
    """What the mixture predicts of images on test sides, by id, mean over their splits.

    Out of the predictions that `evaluate` wrote beside the run and for its further data sets.

    Raises:
        AgiqaError: predictions.csv is damaged.
    """
    scores: dict[str, float] = {}
    for folder in (run.folder, *sorted((run.folder / DATASETS).glob("*"))):
        if (means := mean_predictions(folder, by="image_id")) is not None:
            scores |= {str(name): float(score) for name, score in means["score"].items()}
    return scores


def default_run() -> Path:
    """Find the run that comes with agiqa: fitted on AGIQA-3K with nano; its README is its card."""
    return bundled_folder(SCORERS) / DEFAULT


def _with_own_libraries(
    trained: Mapping[str, Any], described: Mapping[str, Any], params: Params
) -> Mapping[str, Any]:
    """The stores that a published run was fitted on, as if with the libraries that are here.

    It is used with whichever versions are installed; a line says so where they are others. The
    same libraries have to be there: another one may be another model. `nano` is assembled here
    out of files with known digests, but another transformers writes other words around them.

    Args:
        trained: stores of the run.
        described: stores that are made here.
        params: the run's settings, which name the models.
    """
    semantic, visual = params.semantic.model, params.visual.model
    models = {"semantic": semantic, ANSWERS: semantic, "visual": visual}
    stores, others = {}, set[str]()
    for kind, store in trained.items():
        prints = []
        for own, other in zip(store["fingerprints"], described[kind]["fingerprints"], strict=False):
            made, here = own.get("libraries", {}), other.get("libraries", {})
            if made.keys() == here.keys():
                others |= {f"{n} {here[n]} ({made[n]})" for n in made if made[n] != here[n]}
                own = {**own, "libraries": here}
                if models.get(kind) == NANO and made["transformers"] != here["transformers"]:
                    own["model"] = other["model"]
            prints.append(own)
        stores[kind] = {**store, "fingerprints": prints}
    if others:
        log.warning(
            "The published run was fitted with other versions than are here, so scores may differ "
            "in their last digits: %s.", ", ".join(sorted(others)),
        )  # fmt: skip
    return stores


def _with_visual(
    semantic: Extractor, wanted: Sequence[int], visual: VisualInput | PixelInput
) -> Extractor | None:
    """Make the wanted semantic vectors and the visual ones in one pass, where they can be.

    Not where tokens are wanted, too, which end in the middle of the tower.
    """
    if not isinstance(visual, VisualInput) or visual.tokens is not None:
        return None
    if (both := shared_tower(semantic, visual.extractor)) is None:
        return None
    return VectorSubset(both, [*wanted, *range(len(semantic.vectors), len(both.vectors))])


def _wanted(extractor: Extractor, run: Run, where: str) -> VectorSubset:
    """The extractor with the vectors that the run reads: semantic ones, then answers."""
    stores = [vector.store for vector in extractor.vectors]
    semantic = [index for index, store in enumerate(stores) if store != ANSWERS]
    names = [extractor.vectors[index].name for index in semantic]
    wanted = [semantic[index] for index in choose_vectors(names, run.params.fit.vectors, where)]
    if run.params.fit.answers:
        wanted += [index for index, store in enumerate(stores) if store == ANSWERS]
    return VectorSubset(extractor, wanted)


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
