"""`Explainer`: maps, reasons and neighbours of images, by what a run and its cache hold."""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.groups import prompt_key
from agiqa.data.images import image_id
from agiqa.runs.explain.aspects import Aspects, open_aspects
from agiqa.runs.explain.light_maps import light_maps
from agiqa.runs.explain.looks import Looks, Pictures, by_image, in_memory, pictures
from agiqa.runs.explain.neighbours import Alikeness, nearest
from agiqa.runs.explain.quality_map import QualityMap
from agiqa.runs.explain.rated import Rated, read_rated
from agiqa.runs.explain.reason import AspectValidity, Neighbour, Reason
from agiqa.runs.score import LightSight, Scorer
from agiqa.stage1.extractors import VisionExtractor
from agiqa.stage2.features import describe_store, require_same_stores, with_answers
from agiqa.stage2.light.ensemble import Ensemble
from agiqa.store import read_pack

log = logging.getLogger(__name__)

MAPS, REASONS, NEIGHBOURS = "maps", "reasons", "neighbours"
PLACED = ("mean", "std")  # pools that patches have a part in
OF_PAPER = (
    "The network's own patch scores times patch weights, less their mean over the image, averaged "
    "over the splits."
)


class Explainer:
    """Explains a run's scores; what it cannot give stands in `available`.

    Args:
        scorer: of the run.
        cache: the folder of `--cache`, which holds the run's data set; None: maps only.
        aspects: name of the store of aspects' answers (`cache/DATASET/NAME-answers.zarr`); None:
            the one found there.
    """

    def __init__(
        self, scorer: Scorer, cache: Path | None = None, aspects: str | None = None
    ) -> None:
        self.scorer, self.run = scorer, scorer.run
        self.cache, self._aspects_name = cache, aspects
        self._rated: Rated | None = None
        self._alike: Alikeness | None = None
        self._aspects: Aspects | None = None
        self.available = {
            MAPS: _why_not(self._require_maps),
            NEIGHBOURS: _why_not(self._open_neighbours),
            REASONS: _why_not(self._open_aspects),
        }

    @property
    def rated(self) -> Rated | None:
        """The data set that reasons and neighbours come from, if it is there."""
        return self._rated

    @property
    def validity(self) -> list[AspectValidity]:
        """Each aspect's relation to MOS and residual; empty where there are no reasons.

        Seconds at the first look: the run scores its validation sides.
        """
        return [] if self._aspects is None else self._aspects.validity

    def maps(
        self, images: Pictures, image_prompts: Sequence[str] | None = None
    ) -> list[QualityMap]:
        """What each place does to the score.

        Args:
            images: files, or RGB images in memory; not both.
            image_prompts: as the run's scorer wants them.

        Raises:
            AgiqaError: the run gives no maps, or a file cannot be decoded.
        """
        self._require(MAPS)
        in_memory(images)
        ensemble = self.run.ensemble
        if not isinstance(ensemble, Ensemble):
            scores = self.scorer(images, image_prompts)
            return [_of_paper(score.quality_map) for score in scores]
        visual, semantic = self.visual_and_semantic(images, image_prompts)
        return light_maps(ensemble, self.vision, pictures(images), visual, semantic)

    def visual_and_semantic(
        self, images: Pictures, image_prompts: Sequence[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a run of the preset light sees of images: `(B, F)` and `(B, P, D)`."""
        vectors = self._semantic(images, image_prompts)
        said = np.stack([vectors[place] for place in self.scorer.order], axis=1)
        if len(vectors) > len(self.scorer.said):
            said = with_answers(said, np.stack(vectors[len(self.scorer.said) :], axis=1))
        return self._visual(images), said

    def reasons(
        self,
        images: Pictures,
        image_prompts: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[list[Reason]]:
        """The aspects in which images are unusual, the strongest first; often none.

        Images of the data set are answered from the cache; others ask the model, as the store says
        it was asked.

        Args:
            images: files, or RGB images in memory; not both.
            image_prompts: what they were made from, where the aspects' questions hold it.
            ids: their image ids, if known: files in the cache are then not opened.

        Raises:
            AgiqaError: there is no store of answers, a file cannot be decoded, or this environment
                would answer otherwise than the store's.
        """
        self._require(REASONS)
        in_memory(images)
        assert self._aspects is not None
        known = list(ids) if ids else by_image(images, image_id)
        return self._aspects.reasons(images, known, image_prompts)

    def neighbours(
        self,
        images: Pictures,
        count: int = 5,
        image_prompts: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[list[Neighbour]]:
        """The rated images most alike, never the image itself nor a file of the same bytes.

        Args:
            images: files, or RGB images in memory; not both.
            count: how many of each.
            image_prompts: what images outside the data set were made from, to mark neighbours of
                the same text.
            ids: their image ids, if known: files in the cache are then not opened.

        Raises:
            AgiqaError: the data set or its visual features are not there.
        """
        self._require(NEIGHBOURS)
        in_memory(images)
        rated, alike = self._rated, self._alike
        assert rated is not None
        assert alike is not None
        known = list(ids) if ids else by_image(images, image_id)
        visual = self._visual(images, known)
        given = image_prompts or [""] * len(images)
        prompts = [
            rated.prompts.get(own or "", told) for own, told in zip(known, given, strict=True)
        ]
        row_of = {name: row for row, name in reversed(list(enumerate(rated.ids)))}
        rows = np.array([row_of.get(name, -1) for name in alike.store.image_ids])
        allowed = (rows >= 0) & np.isfinite(rated.mos[rows])
        return [
            [
                self._neighbour(rated, int(rows[place]), float(cosines[place]), prompt)
                for place in nearest(cosines, alike.store.image_ids, allowed, own, count)
            ]
            for cosines, own, prompt in zip(alike.cosines(visual), known, prompts, strict=True)
        ]

    @staticmethod
    def _neighbour(rated: Rated, row: int, cosine: float, prompt: str) -> Neighbour:
        about = rated.table.frame.iloc[row]
        return Neighbour(
            path=str(about["path"]),
            mos=float(rated.mos[row]),
            score=rated.scores.get(str(about["path"])),
            similarity=cosine,
            generator=str(about["generator"]),
            same_prompt=prompt_key(prompt) == prompt_key(str(about["prompt"])) != "",
        )

    def _require(self, kind: str) -> None:
        if self.available[kind]:
            raise AgiqaError(self.available[kind])

    def _require_maps(self) -> None:
        if isinstance(self.run.ensemble, Ensemble) and not set(PLACED) & set(
            self.run.params.visual.pool
        ):
            raise AgiqaError(
                f"{self.run.folder}: its visual features hold the class token alone "
                f"(visual.pool: {list(self.run.params.visual.pool)}), which has no place in the "
                "image: no maps."
            )

    def _dataset(self) -> tuple[Path, Rated]:
        if self.cache is None:
            raise AgiqaError("No cache folder is given, so no rated images are known.")
        folder = self.cache / str(self.run.provenance["dataset"])
        if self._rated is None:
            self._rated = read_rated(self.run, folder)
        return folder, self._rated

    def _open_neighbours(self) -> None:
        folder, _ = self._dataset()
        settings = self.run.params.visual
        store = read_pack(folder / f"{settings.name}.{settings.format}")
        if isinstance(self.scorer.sight, LightSight):
            trained = {"visual": self.run.provenance["stores"]["visual"]}
            require_same_stores(trained, {"visual": describe_store(store)})
        self._alike = Alikeness(store)

    def _open_aspects(self) -> None:
        folder, rated = self._dataset()
        visual = self._alike.store if self._alike is not None else None
        self._aspects = open_aspects(
            self.run, folder, rated, visual, self._aspects_name, self.scorer.ledger
        )

    @cached_property
    def vision(self) -> VisionExtractor:
        """What makes the run's visual features; the settings' own, where it reads pixels."""
        if isinstance(self.scorer.sight, LightSight):
            return self.scorer.sight.extractor
        return VisionExtractor(self.run.params.visual)

    @cached_property
    def _look(self) -> Looks:
        return Looks(self.vision, self.scorer.ledger, self.run.params.visual.workers)

    @cached_property
    def _semantic(self) -> Looks:
        return Looks(self.scorer.semantic, self.scorer.ledger, self.run.params.semantic.workers)

    def _visual(self, images: Pictures, ids: Sequence[str | None] = ()) -> np.ndarray:
        """Visual features `(B, F)`; from the pack where all images are in it."""
        if self._alike is not None:
            names = list(ids) or by_image(images, image_id)
            known = set(self._alike.store.image_ids)
            found = [name for name in names if name is not None and name in known]
            if len(found) == len(images):
                rows = self._alike.store.rows(found).astype(np.float32)
                return np.asarray(rows.reshape(len(found), -1))
        return np.concatenate(self._look(images), axis=1)


def _of_paper(values: np.ndarray | None) -> QualityMap:
    assert values is not None
    return QualityMap(
        (values - values.mean()).astype(np.float32),
        (0.0, 0.0, 1.0, 1.0),
        OF_PAPER,
        "patch score × weight",
    )


def _why_not(attempt: Callable[[], None]) -> str:
    """Why it cannot be, in one line; empty where it can."""
    try:
        attempt()
    except AgiqaError as error:
        log.debug("%s", error)
        return " ".join(str(error).split())
    return ""
