"""Reasons of images from the cached answers to the aspects, and of new images from the model."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agiqa.core.errors import AgiqaError
from agiqa.runs.explain.answers import find_answers, levels, read_answers, words
from agiqa.runs.explain.aspect_validity import validity
from agiqa.runs.explain.looks import Looks, Pictures
from agiqa.runs.explain.rated import Rated
from agiqa.runs.explain.reason import AspectValidity, Reason
from agiqa.runs.explain.residuals import validation_scores
from agiqa.runs.explain.wording import word_reasons
from agiqa.runs.files import Run
from agiqa.stage1.extractors import SomeVectors, semantic_extractor
from agiqa.stage2.features import choose_vectors
from agiqa.stage2.light.ensemble import Ensemble
from agiqa.store import ANSWERS, FeatureStore, pack_beside, read_pack, require_same

WELL = 2 / 3  # of the training images' MOS: above it stands the well-rated third
LEAST_WELL = 10  # images


class Aspects:
    """The aspects of one store, for the images of one data set and for new ones."""

    def __init__(
        self,
        run: Run,
        rated: Rated,
        store: FeatureStore,
        visual: FeatureStore | None,
        ledger: Path | None,
    ) -> None:
        self.run, self.rated, self.store, self.visual = run, rated, store, visual
        self.ledger = ledger
        self.words = words(store.fingerprints[0], store.path)
        self.known = set(store.image_ids)
        training = [row for row in rated.rows("train") if rated.ids[row] in self.known]
        mos = rated.mos[training]
        well = [
            rated.ids[row]
            for row in training
            if len(mos) and rated.mos[row] >= np.quantile(mos, WELL)
        ]
        if len(well) < LEAST_WELL:
            raise AgiqaError(
                f"{store.path}: answers about {len(well)} well-rated training images, too few to "
                "compare with; run `agiqa extract`."
            )
        self.well = np.array(well)
        self.well_answers = store.rows(well).astype(np.float64)  # (R, A, K)
        self.well_levels = levels(self.well_answers)

    @cached_property
    def validity(self) -> list[AspectValidity]:
        """Each aspect's relation to MOS and residual over the validation sides."""
        rated = self.rated
        rows = np.array([row for row in rated.rows("val") if rated.ids[row] in self.known])
        found = levels(self.store.rows([rated.ids[row] for row in rows]))
        scores = self._scores()
        residual = None if scores is None else rated.mos[rows] - scores[rows]
        return validity(self.store.names, found, rated.mos[rows], residual, rated.groups(rows))

    def reasons(
        self,
        images: Pictures,
        ids: Sequence[str | None],
        image_prompts: Sequence[str] | None,
    ) -> list[list[Reason]]:
        """Reasons of each image; `ids` are None for images in memory."""
        if not any(relation.shown for relation in self.validity):
            return [[] for _ in images]
        new = [place for place, name in enumerate(ids) if name not in self.known]
        answers = np.empty((len(images), len(self.store.names), len(self.words)))
        if new:
            given = None if image_prompts is None else [image_prompts[place] for place in new]
            fresh = self._look([images[place] for place in new], given)
            answers[new] = np.stack(fresh, axis=1)
        old = [place for place in range(len(images)) if place not in set(new)]
        if old:
            answers[old] = self.store.rows([str(ids[place]) for place in old])
        found = []
        for name, answer, level in zip(ids, answers, levels(answers), strict=True):
            others = self.well != name
            found.append(
                word_reasons(
                    level,
                    answer,
                    self.well_levels[others],
                    self.well_answers[others].mean(axis=0),
                    self.words,
                    self.validity,
                )
            )
        return found

    @cached_property
    def _look(self) -> Looks:
        """What asks the model as the store says it was asked.

        Raises:
            AgiqaError: the model here, or its surroundings, would answer otherwise.
        """
        made: Mapping[str, Any] = self.store.fingerprints[0]
        own = self.run.params.semantic
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "asked.yaml"
            path.write_text(yaml.safe_dump(self._prompt_set(), sort_keys=False), encoding="utf-8")
            settings = replace(
                own,
                name=self.store.extractor,
                prompts=str(path),
                dtype=made.get("dtype", own.dtype),
                attention=made.get("attention", own.attention),
                precision=made.get("stored_as", own.precision),
                layers=(),
            )
            try:
                whole = semantic_extractor(settings)
            except AgiqaError as error:
                raise AgiqaError(f"No reasons for new images: {error}") from error
        places = [i for i, each in enumerate(whole.vectors) if each.store == ANSWERS]
        extractor = SomeVectors(whole, places)
        for name, made, found in zip(
            self.store.names, self.store.fingerprints, extractor.vectors, strict=True
        ):
            require_same(
                made,
                found.fingerprint,
                where=f"no reasons for new images: the answers '{name}' of {self.store.path}",
                advice="they would be answered otherwise here; use the model and the libraries "
                "that made the store, or run `agiqa extract` for it again",
            )
        return Looks(extractor, self.ledger, own.workers)

    def _prompt_set(self) -> dict[str, Any]:
        """The prompt set, as the store's fingerprints hold it."""
        asked: list[Any] = [each["prompt"] for each in self.store.fingerprints]
        return {
            "name": self.store.extractor,
            "citation": "as the store of answers has it",
            "order": asked[0].get("order", "image_first"),
            "template": asked[0]["template"],
            "pooling": "last",
            "answers": self.words,
            "prompts": {
                name: each["text"] for name, each in zip(self.store.names, asked, strict=True)
            },
        }

    def _scores(self) -> np.ndarray | None:
        """The run's scores `(N,)` of validation images; None where they would cost too much."""
        ensemble, rated = self.run.ensemble, self.rated
        if not isinstance(ensemble, Ensemble) or self.visual is None:
            return None
        own = self.run.params.semantic
        path = self.store.path.with_name(f"{own.name}.{own.format}")
        if not path.exists():
            return None
        semantic = read_pack(path)
        answers = read_pack(pack_beside(path, ANSWERS)) if self.run.params.fit.answers else None
        there = set(semantic.image_ids) & set(self.visual.image_ids)
        sides = {
            seed: np.array([row for row in each["val"] if rated.ids[row] in there])
            for seed, each in rated.sides.items()
        }
        chosen = choose_vectors(semantic.names, self.run.params.fit.vectors, str(path))
        return validation_scores(ensemble, sides, rated.ids, self.visual, semantic, chosen, answers)


def open_aspects(
    run: Run,
    folder: Path,
    rated: Rated,
    visual: FeatureStore | None,
    name: str | None,
    ledger: Path | None,
) -> Aspects:
    """The aspects' answers about a run's data set.

    Args:
        run: whose error the aspects are held against.
        folder: `cache/DATASET`.
        rated: its images.
        visual: its visual features, if they are at hand.
        name: of the store of answers; None: the one found there.
        ledger: where answers about new files are kept.

    Raises:
        AgiqaError: there is none, it is damaged, or it knows too few well-rated images.
    """
    path = find_answers(folder, name, run.params.semantic.name)
    return Aspects(run, rated, read_answers(path), visual, ledger)
