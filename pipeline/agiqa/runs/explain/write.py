"""What `agiqa explain` writes into a run: overlays and explanations.json, which the report shows.

    maps/NNN-<image id>.png   an image of the data set with its map
    explanations.json         layout, dataset, available, images by path (overlay, weakest, reasons,
                              neighbours, problem), reasons_validity, and deletion: the deletion
                              test, where benchmarks/deletion_test.py left deletion_test.json

The folder is written beside its place and moved there whole.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from PIL import Image

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.json_text import write_json
from agiqa.core.progress import track
from agiqa.core.trees import read_json
from agiqa.data.images import BadImage, BadImagesError, ImageError, check_images, decode, image_id
from agiqa.runs.explain.explainer import MAPS, NEIGHBOURS, REASONS, Explainer
from agiqa.runs.explain.quality_map import QualityMap
from agiqa.runs.explain.rated_images import Neighbour
from agiqa.runs.explain.reasons import Reason
from agiqa.runs.predictions import mean_predictions

Answer = TypeVar("Answer")

LAYOUT = 1
FOLDER, FILE, OVERLAYS = "explanations", "explanations.json", "maps"
DELETION = "deletion_test.json"  # in the run
SIDE = 512  # pixels of an overlay's longer edge, at most
AT_ONCE = 16  # images whose maps are made together


@dataclass(frozen=True)
class Chosen:
    """An image to be explained."""

    name: str  # as in predictions.csv, or as it was given
    file: Path | None  # None: it is not on this machine
    image_id: str
    score: float | None  # mean over the splits that test it; of another image, the run's
    mos: float | None


@dataclass(frozen=True)
class Explained:
    """An image and its explanations."""

    chosen: Chosen
    map: QualityMap | None
    overlay: str | None  # relative to the folder
    reasons: list[Reason]
    neighbours: list[Neighbour]
    problem: str  # why there is no map, in words; "" where there is one


@dataclass(frozen=True)
class Explanations:
    """All that was written to a folder."""

    folder: Path
    images: list[Explained]
    content: Mapping[str, Any]  # of explanations.json


def choose(run: Path, root: Path | None, worst: int, best: int, lowest: int) -> list[Chosen]:
    """Tested images of a run that are worth a look, each once.

    The largest misses, the best hits, spread over the range of the MOS, and the lowest scores, as
    many of each; without a root of the images none is on this machine.

    Raises:
        AgiqaError: the run is not evaluated.
    """
    rows = mean_predictions(run)
    if rows is None:
        raise AgiqaError(
            f"{printable(run)}: not evaluated yet, so nobody knows its worst and best images; run "
            "`agiqa evaluate` first, or name images to explain."
        )
    miss = (rows["score"] - rows["mos"]).abs()
    parts = [miss.nlargest(worst).index, rows["score"].nsmallest(lowest).index]
    if best:
        bins = np.array_split(rows["mos"].sort_values(kind="stable").index, min(best, len(rows)))
        parts.append(pd.Index([miss[paths].idxmin() for paths in bins if len(paths)]))
    names = list(dict.fromkeys(str(name) for part in parts for name in part))
    picked = rows.loc[names]
    return [
        Chosen(name, None if root is None else root / name, str(known), float(score), float(mos))
        for name, known, score, mos in zip(
            names, picked["image_id"], picked["score"], picked["mos"], strict=True
        )
    ]


def chosen_files(
    explainer: Explainer, files: Sequence[Path], skip_bad: bool = False
) -> tuple[list[Chosen], list[BadImage]]:
    """Choose files to be explained, by the data set's name for those that are in it.

    `skip_bad` leaves out those that cannot be decoded, which come second.

    Raises:
        AgiqaError: some cannot be decoded; with `skip_bad`: all.
    """
    bad = check_images(files)
    if bad and (not skip_bad or len(bad) == len(files)):
        first = "; ".join(f"{image.path} {image.reason}" for image in bad[:3])
        raise AgiqaError(
            f"{len(bad)} of {len(files)} images cannot be explained: {first}; repair them"
            + ("" if skip_bad else ", or leave them out with --skip-bad")
        )
    rated = explainer.rated
    rows = {} if rated is None else {name: row for row, name in enumerate(rated.ids)}
    unusable = {image.path for image in bad}
    chosen = []
    for file in files:
        if str(file) in unusable:
            continue
        name = image_id(file)
        if rated is None or name not in rows:
            chosen.append(Chosen(printable(file), file, name, None, None))
            continue
        path, mos = str(rated.table.frame["path"].iloc[rows[name]]), float(rated.mos[rows[name]])
        known = mos if np.isfinite(mos) else None
        chosen.append(Chosen(path, file, name, rated.scores.get(path), known))
    return chosen, bad


def with_scores(
    explainer: Explainer, chosen: Sequence[Chosen], image_prompt: str | None = None
) -> list[Chosen]:
    """Score the images that no split has tested; those that the models refuse stay without."""
    unscored = [image.file for image in chosen if image.score is None and image.file is not None]
    prompts = None if image_prompt is None else [image_prompt] * len(unscored)
    scores, _ = explainer.scorer.score_good(unscored, prompts) if unscored else ([], [])
    score_of = {score.image: score.score for score in scores}
    return [
        replace(image, score=score_of.get(str(image.file))) if image.score is None else image
        for image in chosen
    ]


def explain_run(
    explainer: Explainer,
    chosen: Sequence[Chosen],
    folder: Path,
    count: int = 5,
    image_prompt: str | None = None,
) -> Explanations:
    """Explain images and write the folder, replacing an older one; each has `count` neighbours.

    `image_prompt` is what all images were made from, for runs that ask for it.

    Raises:
        AgiqaError: nothing to explain, the folder holds something else, or nothing can be said.
    """
    if not chosen:
        raise AgiqaError("No images to explain: give some, or --worst, --best or --lowest.")
    require_replaceable(folder)
    if all(explainer.available.values()):
        raise AgiqaError(f"Nothing to explain with: {explainer.available[MAPS]}")
    unreadable = _problems(chosen)
    asking = _Asking(explainer, chosen, image_prompt)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        staged = Path(temporary) / "new"
        (staged / OVERLAYS).mkdir(parents=True)
        maps, unmapped = asking.maps(unreadable)
        reasons, neighbours = asking.reasons_and_neighbours(unreadable, count)
        peak = float(np.quantile([one.peak for one in maps.values()], 0.9)) if maps else 0.0
        explained = []
        for index, image in enumerate(chosen):
            overlay = None
            if index in maps and image.file is not None:
                overlay = f"{OVERLAYS}/{index:03d}-{image.image_id[:12]}.png"
                _draw(maps[index], image.file, peak, staged / overlay)
            problem = unreadable.get(index, unmapped.get(index, ""))
            of_image = reasons.get(index, []), neighbours.get(index, [])
            explained.append(Explained(image, maps.get(index), overlay, *of_image, problem))
        content = _content(explainer, explained)
        write_json(staged / FILE, content)
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        staged.rename(folder)
    return Explanations(folder, explained, content)


def require_replaceable(folder: Path) -> None:
    """Refuse to replace what `agiqa explain` did not write.

    Raises:
        AgiqaError: a file, or a folder of something else.
    """
    if not folder.exists() or (folder / FILE).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise AgiqaError(
            f"{printable(folder)}: expected a folder that `agiqa explain` wrote, or none, found "
            "something else; choose another with -o."
        )


def _problems(chosen: Sequence[Chosen]) -> dict[int, str]:
    """Why an image cannot be looked at, by place."""
    files = {index: image.file for index, image in enumerate(chosen)}
    present = {index: file for index, file in files.items() if file is not None}
    bad = {image.path: image.reason for image in check_images(list(present.values()))}
    absent = dict.fromkeys(files.keys() - present.keys(), "is not on this machine")
    return absent | {p: bad[printable(f)] for p, f in present.items() if printable(f) in bad}


Ask = Callable[[list[Path], list[str] | None, list[str]], Sequence[Answer]]  # files, prompts, ids


@dataclass(frozen=True)
class _Asking:
    """An explainer asked about chosen images, by their places; bad ones do not stop the others."""

    explainer: Explainer
    chosen: Sequence[Chosen]
    image_prompt: str | None

    def maps(self, problems: Mapping[int, str]) -> tuple[dict[int, QualityMap], dict[int, str]]:
        """Maps, or why there are none, of the images without problems."""
        indices = [index for index in range(len(self.chosen)) if index not in problems]
        if self.explainer.available[MAPS]:
            return {}, dict.fromkeys(indices, self.explainer.available[MAPS])
        maps: dict[int, QualityMap] = {}
        refused: dict[int, str] = {}
        for start in track(
            range(0, len(indices), AT_ONCE), "Maps", unit=AT_ONCE, total=len(indices)
        ):
            part = self._of_good(
                lambda files, prompts, _: self.explainer.maps(files, prompts),
                indices[start : start + AT_ONCE],
            )
            maps |= part[0]
            refused |= part[1]
        return maps, refused

    def reasons_and_neighbours(
        self, unreadable: Mapping[int, str], count: int
    ) -> tuple[dict[int, list[Reason]], dict[int, list[Neighbour]]]:
        """Both of each image; from the cache also where its file is not here."""
        rated, available = self.explainer.rated, self.explainer.available
        known = set() if rated is None else set(rated.ids)
        indices = [
            index
            for index, image in enumerate(self.chosen)
            if image.image_id in known or index not in unreadable
        ]
        reasons: dict[int, list[Reason]] = {}
        neighbours: dict[int, list[Neighbour]] = {}
        if not available[REASONS]:
            reasons, _ = self._of_good(self.explainer.reasons, indices)
        if not available[NEIGHBOURS]:
            neighbours, _ = self._of_good(
                lambda files, prompts, ids: self.explainer.neighbours(files, count, prompts, ids),
                indices,
            )
        return reasons, neighbours

    def _prompt(self, image: Chosen) -> str:
        """What an image was made from: as was given, else as the data set says of that path."""
        rated = self.explainer.rated
        own = "" if rated is None else rated.prompt_of_path.get(image.name, "")
        return self.image_prompt or own

    def _of_good(
        self, ask: Ask[Answer], indices: Sequence[int]
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        """What `ask` answers, but for images that a model does not take: of these, why."""
        bad: dict[int, str] = {}
        remaining = list(indices)
        while remaining:
            files = [
                self.chosen[index].file or Path(self.chosen[index].name) for index in remaining
            ]
            prompts = [self._prompt(self.chosen[index]) for index in remaining]
            try:
                ids = [self.chosen[index].image_id for index in remaining]
                answers = ask(files, prompts if any(prompts) else None, ids)
                return dict(zip(remaining, answers, strict=True)), bad
            except BadImagesError as error:
                reasons = {image.path: image.reason for image in error.bad}
                named = zip(remaining, map(printable, files), strict=True)
                refused = {index: reasons[file] for index, file in named if file in reasons}
                if not refused:
                    raise
                bad |= refused
                remaining = [index for index in remaining if index not in refused]
        return {}, bad


def _draw(quality_map: QualityMap, file: Path, peak: float, path: Path) -> None:
    try:
        image = decode(file)
    except ImageError as error:  # it was there a moment ago
        raise AgiqaError(f"{error}; run `agiqa explain` again") from error
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    quality_map.overlay(image, peak=peak).save(path, optimize=True)


def _content(explainer: Explainer, images: Sequence[Explained]) -> dict[str, Any]:
    run = explainer.run
    measured = run.folder / DELETION
    try:
        deletion = read_json(measured) if measured.is_file() else None
    except ValueError as error:
        raise AgiqaError(f"{measured}: damaged ({error}); remove it.") from error
    return {
        "layout": LAYOUT,
        "dataset": run.provenance["dataset"],
        "available": explainer.available,
        "images": {
            image.chosen.name: {
                "overlay": image.overlay,
                "weakest": None if image.map is None else image.map.weakest,
                "reasons": [asdict(reason) for reason in image.reasons],
                "neighbours": [asdict(neighbour) for neighbour in image.neighbours],
                "problem": image.problem,
            }
            for image in images
        },
        "reasons_validity": [
            asdict(figure) | {"low": figure.low, "high": figure.high}
            for figure in explainer.validity
        ],
        "deletion": deletion,
    }
