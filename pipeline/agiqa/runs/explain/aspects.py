"""Reasons of images from the cached answers to the aspects, and of new images from the model.

An aspect's number is the answers' mean level under the model's probabilities, 1 for the first and
worst word to K for the last and best, as Q-Align scores images (arXiv:2312.17090).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.data.prompts import LIKELIHOOD, WORDS, PromptSet, make_prompt_set
from agiqa.runs.explain.rated_images import RatedImages
from agiqa.runs.explain.reasons import AspectValidity, Reason, validity, word_reasons
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

ASPECTS = "aspects"  # the word in a store's name by which it is preferred to others
LEAST_ANSWERS = 2
WELL = 2 / 3  # of the training images' MOS: above it stands the well-rated third
LEAST_WELL = 10  # images


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
        self,
        images: Sequence[Path],
        ids: Sequence[str],
        image_prompts: Sequence[str] | None,
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
