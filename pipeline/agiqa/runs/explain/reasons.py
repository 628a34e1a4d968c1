"""Reasons in words: what the model answers about aspects of an image, and how far that is believed.

Answers come from the cache, and about new images from the model. An aspect's number is the answers'
mean level under the model's probabilities, 1 for the first and worst word to K for the last and
best, as Q-Align scores images (arXiv:2312.17090).

An aspect may speak by its relation to the MOS and to the run's error: Spearman's rho with bootstrap
intervals over prompt groups (images, where there are no groups), the ranks held. The interval is
normal on Fisher's scale, so that its ends can be widened for the number of relations looked at
(Bonferroni): an aspect is shown if a better answer goes with a higher MOS, or with an MOS above the
score, the widened interval leaves out zero, and rho is not so small that only many images made it
certain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from agiqa.core.errors import AgiqaError
from agiqa.data.prompts import LIKELIHOOD, WORDS, PromptSet, make_prompt_set
from agiqa.runs.explain.rated_images import RatedImages
from agiqa.runs.files import Run
from agiqa.stage1.extractors import VectorSubset, semantic_extractor
from agiqa.stage1.one_machine import OneMachine
from agiqa.stage1.vectors import FileVectors
from agiqa.stage2.features import choose_vectors, with_answers
from agiqa.stage2.light.ensemble import Ensemble
from agiqa.store import (
    ANSWERS,
    FORMATS,
    FeatureStore,
    PackError,
    pack_beside,
    read_pack,
    read_pack_metadata,
    require_same,
)
from agiqa.store.row_ids import row_id

RESAMPLES = 2000
BLOCK = 100  # resamples at a time
LEVEL = 0.95  # of all intervals together
LEAST_RHO = 0.1
LEAST = 20  # images and groups; fewer show nothing
SEED = 0

UNUSUAL = 10.0  # percent: below it, or above 100 less it, an aspect is worth a sentence
MOST = 3  # sentences an image; the aspects say much the same of one
WEAK, MODERATE = 0.3, 0.5  # of rho

ASPECTS = "aspects"  # the word in a store's name by which it is preferred to others
LEAST_ANSWERS = 2
WELL = 2 / 3  # of the training images' MOS: above it stands the well-rated third
LEAST_WELL = 10  # images

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reason:
    """An aspect in which an image is unusual against well-rated images."""

    aspect: str  # the question's name in the prompt set
    text: str  # one sentence, with the numbers
    answer: str  # the answer that the model gives most above what it gives to well-rated images
    percentile: float  # 0 to 100, of the image among well-rated ones; low: worse than most of them
    strength: float  # 0 to 1: how unusual, times how well the aspect relates to the MOS


@dataclass(frozen=True)
class AspectValidity:
    """How an aspect's answers relate to the MOS and to the run's error, on the validation sides.

    Spearman's rho, with intervals widened for the number of aspects.
    """

    aspect: str
    rho_mos: float
    mos_low: float
    mos_high: float
    rho_residual: float  # of MOS less score
    residual_low: float
    residual_high: float
    shown: bool  # one of the two lies above zero, and not just so: a better answer, a better image

    @property
    def by_residual(self) -> bool:
        """Whether it is shown for its relation to the residual; else for that to the MOS."""
        weak = self.mos_low <= 0 or self.rho_mos < self.rho_residual
        return self.shown and weak and self.residual_low > 0

    @property
    def low(self) -> float:
        """The lower end of the interval by which it is shown; of the MOS's where it is not."""
        return self.residual_low if self.by_residual else self.mos_low

    @property
    def high(self) -> float:
        """The upper end of the same interval."""
        return self.residual_high if self.by_residual else self.mos_high


def validity(
    aspects: Sequence[str], levels: Array, mos: Array, residual: Array | None, groups: Sequence[str]
) -> list[AspectValidity]:
    """Each of A aspects' relation on n images, by their levels `(n, A)`.

    The residual is MOS less score, None where there are no scores; images of equal groups are drawn
    together.
    """
    tests = len(aspects) * (1 if residual is None else 2)
    by_mos = _relations(levels, mos, groups, tests)
    by_residual = np.full((3, len(aspects)), np.nan)
    if residual is not None:
        by_residual = _relations(levels, residual, groups, tests)
    return [
        AspectValidity(name, *[*mos_row, *residual_row, _counts(mos_row) or _counts(residual_row)])
        for name, mos_row, residual_row in zip(
            aspects, by_mos.T.tolist(), by_residual.T.tolist(), strict=True
        )
    ]


def _counts(relation: Sequence[float]) -> bool:
    """Whether rho, low and high say enough."""
    return relation[0] >= LEAST_RHO and relation[1] > 0


def _relations(levels: Array, target: Array, groups: Sequence[str], tests: int) -> Array:
    """Rho, low and high `(3, A)`; NaN where nothing varies or there is too little."""
    columns = np.stack([rankdata(column) for column in levels.T], axis=1)
    ranks = rankdata(target)
    columns, ranks = columns - columns.mean(axis=0), ranks - ranks.mean()
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    units = int(codes.max()) + 1 if len(codes) else 0
    if units < LEAST:
        return np.full((3, levels.shape[1]), np.nan)
    one = np.ones_like(ranks)[:, None]
    y = ranks[:, None]
    table = np.concatenate([one, y, y * y, columns, columns**2, columns * y], axis=1)
    sums = np.zeros((units, table.shape[1]))
    np.add.at(sums, codes, table)
    rng = np.random.default_rng(SEED)
    drawn = [
        _rho(rng.multinomial(units, np.full(units, 1 / units), size=BLOCK) @ sums)
        for _ in range(RESAMPLES // BLOCK)
    ]
    rho = _rho(sums.sum(axis=0, keepdims=True))[0]
    centre = np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9))
    error = np.arctanh(np.clip(np.concatenate(drawn), -1 + 1e-9, 1 - 1e-9)).std(axis=0, ddof=1)
    reach = norm.ppf(1 - (1 - LEVEL) / 2 / tests) * error
    return np.stack([rho, np.tanh(centre - reach), np.tanh(centre + reach)])


def _rho(sums: Array) -> Array:
    """Pearson's r `(B, A)` from weighted sums `(B, 3 + 3 A)`; NaN for what does not vary."""
    n, y, yy = (sums[:, [power]] for power in range(3))
    x, xx, xy = np.split(sums[:, 3:], 3, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2)))


def word_reasons(
    levels: np.ndarray,
    answers: np.ndarray,
    reference: np.ndarray,
    usual: np.ndarray,
    words: list[str],
    relations: list[AspectValidity],
) -> list[Reason]:
    """The aspects in which one image is unusual, the strongest first, of those that are `shown`.

    Of its levels `(A,)` and probabilities `(A, K)`, against well-rated images' levels `(R, A)` and
    their mean, the `usual` probabilities `(A, K)`; `words` are the K answers.
    """
    reasons = []
    for column, relation in enumerate(relations):
        others = reference[:, column]
        level = float(levels[column])
        below = float(np.mean(others < level) + np.mean(others == level) / 2) * 100
        if not relation.shown or UNUSUAL < below < 100 - UNUSUAL:
            continue
        rho = relation.rho_residual if relation.by_residual else relation.rho_mos
        reasons.append(
            Reason(
                aspect=relation.aspect,
                text=_sentence(relation, rho, level, others, below, words),
                answer=words[int(np.argmax(answers[column] - usual[column]))],
                percentile=round(below, 1),
                strength=round(abs(below - 50) / 50 * rho, 4),
            )
        )
    return sorted(reasons, key=lambda reason: -reason.strength)[:MOST]


def _sentence(
    relation: AspectValidity,
    rho: float,
    level: float,
    others: np.ndarray,
    below: float,
    words: list[str],
) -> str:
    low = below < 50
    side, share = ("lower", 100 - below) if low else ("higher", below)
    goes = "a lower MOS" if low else "a higher MOS"
    if relation.by_residual:
        goes = f"an MOS {'below' if low else 'above'} the score"
    how = "weakly" if rho < WEAK else "moderately" if rho < MODERATE else "strongly"
    return (
        f"{relation.aspect.replace('_', ' ').capitalize()}: the model answers {level:.2f} on the "
        f"scale from {words[0]} (1) to {words[-1]} ({len(words)}), {side} than for {share:.0f} % "
        f"of the well-rated images (median {np.median(others):.2f}); such answers go with {goes}, "
        f"{how} (rho {rho:.2f}, {relation.low:.2f} to {relation.high:.2f})."
    )


class Aspects:
    """The aspects of one store, for the images of one data set and for new ones.

    They are held against the run's error, which needs the visual features; answers about new files
    are kept in the ledger.

    Raises:
        AgiqaError: the store is damaged, or knows too few well-rated images.
    """

    def __init__(
        self,
        run: Run,
        rated: RatedImages,
        path: Path,
        visual: FeatureStore | None,
        ledger: Path | None,
    ) -> None:
        self.run, self.rated, self.visual, self.ledger = run, rated, visual, ledger
        self.words = words(read_pack_metadata(path)["fingerprints"][0], path)
        self.store = read_pack(path)
        self.known, self.row_ids = set(self.store.image_ids), self.store.row_ids(rated.table)
        training = self._known_rows("train")
        mos = rated.mos[training] if len(training) else np.empty(0)
        high = training[mos >= np.quantile(mos, WELL)] if len(training) else training
        self.well = np.array([rated.ids[row] for row in high])  # image ids (R,)
        if len(self.well) < LEAST_WELL:
            raise AgiqaError(
                f"{path}: answers about {len(self.well)} well-rated training images, too few to "
                "compare with; run `agiqa extract`."
            )
        answers = self.store.rows([self.row_ids[row] for row in high])
        self.well_answers = answers.astype(np.float64)  # (R, A, K)
        self.well_levels = levels(self.well_answers)

    @cached_property
    def validity(self) -> list[AspectValidity]:
        """Each aspect's relation to MOS and residual over the validation sides."""
        rated = self.rated
        rows = self._known_rows("val")
        validated = levels(self.store.rows([self.row_ids[row] for row in rows]))
        scores = self._validation_scores()
        residual = None if scores is None else rated.mos[rows] - scores[rows]
        groups = rated.groups(rows)
        return validity(self.store.names, validated, rated.mos[rows], residual, groups)

    def reasons(
        self, images: Sequence[Path], ids: Sequence[str], image_prompts: Sequence[str] | None
    ) -> list[list[Reason]]:
        """Reasons of each image; a file whose answers are in the store is not opened."""
        if not any(relation.shown for relation in self.validity):
            return [[] for _ in images]
        given = image_prompts or [""] * len(images)
        rows = [self._row_id(name, prompt) for name, prompt in zip(ids, given, strict=True)]
        stored = [index for index, row in enumerate(rows) if row in self.known]
        new = [index for index, row in enumerate(rows) if row not in self.known]
        answers = np.empty((len(images), len(self.store.names), len(self.words)))
        if stored:
            answers[stored] = self.store.rows([rows[index] for index in stored])
        if new:
            prompts = None if image_prompts is None else [image_prompts[index] for index in new]
            fresh = self._asked.of_paths([images[index] for index in new], prompts)
            answers[new] = np.stack(fresh, axis=1)
        reasons = []
        for name, answer, level in zip(ids, answers, levels(answers), strict=True):
            others = self.well != name
            usual = self.well_answers[others].mean(axis=0)
            reference = self.well_levels[others]
            reasons.append(word_reasons(level, answer, reference, usual, self.words, self.validity))
        return reasons

    def _known_rows(self, side: str) -> np.ndarray:
        """Row numbers of rated images on that side of some split about which there are answers."""
        return np.array([row for row in self.rated.rows(side) if self.row_ids[row] in self.known])

    def _row_id(self, image_id: str, prompt: str) -> str:
        """The id in the store of an image, with the prompt given or that of the data set."""
        if not self.store.by_prompt:
            return image_id
        return row_id(image_id, prompt or self.rated.prompts.get(image_id))

    @cached_property
    def _asked(self) -> FileVectors:
        """What asks the model as the store says it was asked.

        Raises:
            AgiqaError: the model here, or its surroundings, would answer otherwise.
        """
        made: Mapping[str, Any] = self.store.fingerprints[0]
        own = self.run.params.semantic
        settings = replace(
            own,
            name=self.store.extractor,
            dtype=made.get("dtype", own.dtype),
            attention=made.get("attention", own.attention),
            precision=made.get("stored_as", own.precision),
            layers=(),
        )
        try:
            whole = semantic_extractor(settings, self._prompt_set())
        except AgiqaError as error:
            raise AgiqaError(f"No reasons for new images: {error}") from error
        answers_at = [i for i, vector in enumerate(whole.vectors) if vector.store == ANSWERS]
        extractor = VectorSubset(whole, answers_at)
        for name, stored, vector in zip(
            self.store.names, self.store.fingerprints, extractor.vectors, strict=True
        ):
            require_same(
                stored,
                vector.fingerprint,
                where=f"no reasons for new images: the answers '{name}' of {self.store.path}",
                advice="they would be answered otherwise here; use the model and the libraries "
                "that made the store, or run `agiqa extract` for it again",
            )
        return FileVectors(extractor, self.ledger, OneMachine(own.workers))

    def _prompt_set(self) -> PromptSet:
        """The prompt set, as the store's fingerprints hold it."""
        asked: list[Any] = [made["prompt"] for made in self.store.fingerprints]
        names = zip(self.store.names, asked, strict=True)
        return make_prompt_set(
            {
                "name": self.store.extractor,
                "citation": "as the store of answers has it",
                "order": asked[0].get("order", "image_first"),
                "template": asked[0]["template"],
                "pooling": "last",
                "answers": self.words,
                "answers_over": asked[0].get("over", WORDS),
                "reply": asked[0].get("reply", ""),
                "prompts": {name: prompt["text"] for name, prompt in names},
            }
        )

    def _validation_scores(self) -> np.ndarray | None:
        """The run's scores `(N,)` of validation images, NaN for others; None: too costly.

        Mean over the splits that validate on the image, none of which trained on it; of the run's
        first target, on the scale of its first data set.
        """
        ensemble, rated, own = self.run.ensemble, self.rated, self.run.params.semantic
        path = self.store.path.with_name(f"{own.name}.{own.format}")
        if not isinstance(ensemble, Ensemble) or self.visual is None or not path.exists():
            return None
        semantic = read_pack(path)
        answers = read_pack(pack_beside(path, ANSWERS)) if self.run.params.fit.answers else None
        chosen = choose_vectors(semantic.names, self.run.params.fit.vectors, str(path))
        ids = semantic.row_ids(rated.table), self.visual.row_ids(rated.table)
        present = np.isin(ids[0], semantic.image_ids) & np.isin(ids[1], self.visual.image_ids)
        total, times = np.zeros((2, len(rated.ids)))
        for index, split in enumerate(ensemble.splits):
            rows = [row for row in rated.sides[split.seed]["val"] if present[row]]
            if not rows:
                continue
            names, images = ([those[row] for row in rows] for those in ids)
            visual = self.visual.rows(images).astype(np.float32).reshape(len(rows), -1)
            vectors = semantic.rows(names)[:, chosen].astype(np.float32)
            if answers is not None:
                vectors = with_answers(vectors, answers.rows(names).astype(np.float32))
            score = ensemble.only(index).predict(visual, vectors).score
            total[rows] += score[..., 0].mean(dim=0).numpy()
            times[rows] += 1
        with np.errstate(invalid="ignore"):
            return np.asarray(total / times)


def find_answers(folder: Path, name: str | None, own: str) -> Path:
    """Find the store of answers in `cache/DATASET`.

    By the extractor's name, such as nano-aspects; else the run's own (its semantic store is `own`)
    if it has answers, else the one of aspects, else the only one.

    Raises:
        AgiqaError: there is none, or several and none is meant more than another.
    """
    stores = {
        path.stem.removesuffix(f"-{ANSWERS}"): path
        for suffix in FORMATS
        for path in sorted(folder.glob(f"*-{ANSWERS}{suffix}"))
    }
    if name is not None:
        if name not in stores:
            expected = pack_beside(folder / f"{name}.zarr", ANSWERS).name
            raise AgiqaError(
                f"{folder}: expected the answers of '{name}' ({expected}), found "
                f"{', '.join(stores) or 'no answers'}: run `agiqa extract` with that prompt set."
            )
        return stores[name]
    if not stores:
        raise AgiqaError(
            f"{folder}: no store of answers; `agiqa extract` with --set semantic.prompts=aspects "
            "--set semantic.name=nano-aspects makes one."
        )
    preferred = [store for store in stores if store == own]
    preferred += [store for store in stores if ASPECTS in store]
    if not preferred and len(stores) > 1:
        raise AgiqaError(f"{folder}: several stores of answers, {', '.join(stores)}: name one.")
    return stores[(preferred or list(stores))[0]]


def words(fingerprint: Mapping[str, Any], path: Path) -> list[str]:
    """The answers, from the worst to the best.

    Raises:
        AgiqaError: the vectors are no answers' probabilities.
    """
    prompt = fingerprint.get("prompt")
    asked = prompt if isinstance(prompt, Mapping) else {}
    answers = asked.get(ANSWERS) if asked.get("over") != LIKELIHOOD else None
    if not isinstance(answers, list) or len(answers) < LEAST_ANSWERS:
        raise PackError(f"{path}: expected probabilities of answers, found other vectors.")
    return [str(answer) for answer in answers]


def levels(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities `(N, A, K)` to mean levels `(N, A)`, 1 to K."""
    shares = probabilities.astype(np.float64)
    shares /= np.maximum(shares.sum(axis=-1, keepdims=True), 1e-12)
    return np.asarray(shares @ np.arange(1, shares.shape[-1] + 1))
