"""`Explainer`: maps, reasons and neighbours of images, by what a run and its cache hold."""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.data.images import decode, image_id
from agiqa.runs.explain.maps import QualityMap, light_maps, paper_map, tuned_maps
from agiqa.runs.explain.rated_images import Alikeness, Neighbour, RatedImages
from agiqa.runs.explain.reasons import Aspects, AspectValidity, Reason, find_answers
from agiqa.runs.score import Scorer, VisualInput
from agiqa.stage1.extractors import TokenExtractor, VisionExtractor
from agiqa.stage1.one_machine import OneMachine
from agiqa.stage1.vectors import FileVectors
from agiqa.stage2.features import describe_store, require_same_stores
from agiqa.stage2.light.ensemble import Ensemble
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.tuned.ensemble import TunedEnsemble
from agiqa.store import read_pack

log = logging.getLogger(__name__)

MAPS, REASONS, NEIGHBOURS = "maps", "reasons", "neighbours"
PLACED = ("mean", "std")  # pools that patches have a part in


class Explainer:
    """Explains a run's scores; what it cannot give stands in `available`.

    `cache` is the folder of `--cache`, which holds the run's data set; without one there are maps
    only. `aspects` is the name of the store of aspects' answers
    (`cache/DATASET/NAME-answers.zarr`), by default the one found there. Images are files; their
    prompts are what they were made from; where their image ids are known, files whose answers or
    features are in the cache are not opened.
    """

    def __init__(
        self, scorer: Scorer, cache: Path | None = None, aspects: str | None = None
    ) -> None:
        self.scorer, self.run = scorer, scorer.run
        self.cache, self._aspects_name = cache, aspects
        self.rated: RatedImages | None = None  # the run's data set, if it is there
        self._alike: Alikeness | None = None
        self._aspects: Aspects | None = None
        self.available = {
            MAPS: _why_not(self._require_maps),
            NEIGHBOURS: _why_not(self._open_neighbours),
            REASONS: _why_not(self._open_aspects),
        }

    @property
    def validity(self) -> list[AspectValidity]:
        """Each aspect's relation to MOS and residual; empty where there are no reasons.

        Seconds at the first look: the run scores its validation sides.
        """
        return [] if self._aspects is None else self._aspects.validity

    def maps(
        self, images: Sequence[Path | str], image_prompts: Sequence[str] | None = None
    ) -> list[QualityMap]:
        """What each place does to the score; image prompts as the run's scorer wants them.

        Raises:
            AgiqaError: the run gives no maps, or a file cannot be decoded.
        """
        self._require(MAPS, images)
        ensemble = self.run.ensemble
        if isinstance(ensemble, PaperEnsemble):
            asked = image_prompts if self.scorer.asks_image_prompt else None
            scores = self.scorer(images, asked)
            return [paper_map(s.quality_map) for s in scores if s.quality_map is not None]
        inputs = (
            [decode(Path(image)) for image in images],
            *self.visual_and_semantic(images, image_prompts),
        )
        if isinstance(ensemble, TunedEnsemble):
            tokens = getattr(self.scorer.visual, "tokens", None)
            assert isinstance(tokens, TokenExtractor)
            return tuned_maps(ensemble, self.vision, tokens, *inputs)
        assert isinstance(ensemble, Ensemble)
        return light_maps(ensemble, self.vision, *inputs)

    def visual_and_semantic(
        self, images: Sequence[Path | str], image_prompts: Sequence[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a run of the preset light sees of images: `(B, F)` and `(B, P, D)`."""
        files = list(map(Path, images))
        semantic = self.scorer.semantic_of_files.of_paths(files, image_prompts)
        return self._visual(files), self.scorer.ordered(semantic)

    def reasons(
        self,
        images: Sequence[Path | str],
        image_prompts: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[list[Reason]]:
        """The aspects in which images are unusual, the strongest first; often none.

        Images of the data set are answered from the cache; others ask the model, as the store says
        it was asked, with their prompts where the aspects' questions hold them.

        Raises:
            AgiqaError: there is no store of answers, a file cannot be decoded, or this environment
                would answer otherwise than the store's.
        """
        self._require(REASONS, images)
        assert self._aspects is not None
        files = list(map(Path, images))
        return self._aspects.reasons(files, ids or list(map(image_id, files)), image_prompts)

    def neighbours(
        self,
        images: Sequence[Path | str],
        count: int = 5,
        image_prompts: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[list[Neighbour]]:
        """The rated images most alike, never the image itself nor a file of the same bytes.

        Prompts of images outside the data set mark neighbours of the same text.

        Raises:
            AgiqaError: the data set or its visual features are not there.
        """
        self._require(NEIGHBOURS, images)
        rated, alike = self.rated, self._alike
        assert rated is not None
        assert alike is not None
        files = list(map(Path, images))
        known = ids or list(map(image_id, files))
        given = image_prompts or [""] * len(images)
        prompts = [rated.prompts.get(own, text) for own, text in zip(known, given, strict=True)]
        return alike.neighbours(rated, self._visual(files, known), known, prompts, count)

    def _require(self, kind: str, images: Sequence[Path | str]) -> None:
        if self.available[kind]:
            raise AgiqaError(self.available[kind])
        if not images:
            raise AgiqaError("No images to explain.")

    def _require_maps(self) -> None:
        if not isinstance(self.run.ensemble, PaperEnsemble) and not set(PLACED) & set(
            self.run.params.visual.pool
        ):
            raise AgiqaError(
                f"{self.run.folder}: its visual features hold the class token alone "
                f"(visual.pool: {list(self.run.params.visual.pool)}), which has no place in the "
                "image: no maps."
            )

    def _dataset(self) -> tuple[Path, RatedImages]:
        if self.cache is None:
            raise AgiqaError("No cache folder is given, so no rated images are known.")
        dataset = str(self.run.provenance["dataset"])
        folder = self.cache / dataset
        if self.rated is None:
            if not folder.is_dir():
                raise AgiqaError(
                    f"{folder}: expected the rated images of '{dataset}', found no folder: run "
                    f"`agiqa prepare {dataset}`, or name the cache that has it (--cache)"
                )
            self.rated = RatedImages.read(self.run, folder)
        return folder, self.rated

    def _open_neighbours(self) -> None:
        folder, _ = self._dataset()
        settings = self.run.params.visual
        store = read_pack(folder / f"{settings.name}.{settings.format}")
        if isinstance(self.scorer.visual, VisualInput):
            trained = {"visual": self.run.provenance["stores"]["visual"]}
            require_same_stores(trained, {"visual": describe_store(store)})
        self._alike = Alikeness(store)

    def _open_aspects(self) -> None:
        folder, rated = self._dataset()
        path = find_answers(folder, self._aspects_name, self.run.params.semantic.name)
        visual = self._alike.store if self._alike is not None else None
        self._aspects = Aspects(self.run, rated, path, visual, self.scorer.ledger)

    @cached_property
    def vision(self) -> VisionExtractor:
        """What makes the run's visual features; the settings' own, where it reads pixels."""
        if isinstance(self.scorer.visual, VisualInput):
            return self.scorer.visual.extractor
        return VisionExtractor(self.run.params.visual)

    def _visual(self, images: Sequence[Path], ids: Sequence[str] = ()) -> np.ndarray:
        """Visual features `(B, F)`; from the pack where all images are in it."""
        if self._alike is not None:
            store, names = self._alike.store, list(ids or map(image_id, images))
            if set(names) <= set(store.image_ids):
                return store.rows(names).astype(np.float32).reshape(len(names), -1)
        engine = OneMachine(self.run.params.visual.workers, whole=False)
        opened = self.scorer.semantic_of_files.opened
        files = FileVectors(self.vision, self.scorer.ledger, engine, opened)
        return np.concatenate(files.of_paths(images), axis=1)


def _why_not(attempt: Callable[[], None]) -> str:
    """Why it cannot be, in one line; empty where it can."""
    try:
        attempt()
    except AgiqaError as error:
        log.debug("%s", error)
        return " ".join(str(error).split())
    return ""
