"""What `agiqa explain` writes into a run: overlays and explanations.json, which the report shows.

    maps/NNN-<image id>.png   an image of the data set with its map
    explanations.json         layout, dataset, available, images by path (overlay, weakest, reasons,
                              neighbours, problem), reasons_validity, and deletion: the deletion
                              test, where benchmarks/deletion_test.py left deletion_test.json

The folder is written beside its place and moved there whole.
"""

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
from agiqa.runs.explain.maps import QualityMap
from agiqa.runs.explain.rated_images import Neighbour
from agiqa.runs.explain.reasons import Reason
from agiqa.runs.files import whole_run
from agiqa.runs.records import mean_predictions

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
    score: float | None = None  # mean over the splits that test it; of another image, the run's
    mos: float | None = None


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
            chosen.append(Chosen(printable(file), file, name))
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
) -> dict[str, Any]:
    """Explain images and write the folder, replacing an older one; each has `count` neighbours.

    `image_prompt` is what all images were made from, for runs that ask for it.

    Returns:
        What explanations.json says.

    Raises:
        AgiqaError: nothing to explain, the folder holds something else, or nothing can be said.
    """
    if not chosen:
        raise AgiqaError("No images to explain: give some, or --worst, --best or --lowest.")
    require_replaceable(folder)
    if all(explainer.available.values()):
        raise AgiqaError(f"Nothing to explain with: {explainer.available[MAPS]}")
    of_path = {} if explainer.rated is None else explainer.rated.prompt_of_path
    prompts = {image.name: image_prompt or of_path.get(image.name, "") for image in chosen}
    with whole_run(folder) as staged:
        (staged / OVERLAYS).mkdir()
        images = _explain(explainer, chosen, prompts, count, staged)
        content = {
            "layout": LAYOUT,
            "dataset": explainer.run.provenance["dataset"],
            "available": explainer.available,
            "images": images,
            "reasons_validity": [
                asdict(aspect) | {"low": aspect.low, "high": aspect.high}
                for aspect in explainer.validity
            ],
            "deletion": _deletion_test(explainer.run.folder / DELETION),
        }
        write_json(staged / FILE, content)
    return content


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


def _explain(
    explainer: Explainer,
    chosen: Sequence[Chosen],
    prompts: Mapping[str, str],
    count: int,
    folder: Path,
) -> dict[str, dict[str, Any]]:
    """Explain the images, by name, and draw their overlays into the folder.

    Reasons and neighbours come from the cache also where an image's file is not here.
    """
    rated, available, problems = explainer.rated, explainer.available, _problems(chosen)
    known = set() if rated is None else set(rated.ids)
    answered = [image for image in chosen if image.image_id in known or image.name not in problems]
    maps, unmapped = _maps(explainer, [i for i in chosen if i.name not in problems], prompts)
    reasons: dict[str, list[Reason]] = {}
    neighbours: dict[str, list[Neighbour]] = {}
    if not available[REASONS]:
        reasons, _ = _answers(explainer.reasons, answered, prompts)
    if not available[NEIGHBOURS]:
        neighbours, _ = _answers(
            lambda files, texts, ids: explainer.neighbours(files, count, texts, ids),
            answered,
            prompts,
        )
    peak = float(np.quantile([one.peak for one in maps.values()], 0.9)) if maps else 0.0
    explained = {}
    for index, image in enumerate(chosen):
        quality_map, overlay = maps.get(image.name), None
        if quality_map is not None and image.file is not None:
            overlay = f"{OVERLAYS}/{index:03d}-{image.image_id[:12]}.png"
            _draw(quality_map, image.file, peak, folder / overlay)
        explained[image.name] = {
            "overlay": overlay,
            "weakest": None if quality_map is None else quality_map.weakest,
            "reasons": [asdict(reason) for reason in reasons.get(image.name, [])],
            "neighbours": [asdict(alike) for alike in neighbours.get(image.name, [])],
            "problem": problems.get(image.name, unmapped.get(image.name, "")),
        }
    return explained


def _problems(chosen: Sequence[Chosen]) -> dict[str, str]:
    """Why an image cannot be looked at, by name."""
    files = {image.name: image.file for image in chosen if image.file is not None}
    bad = {image.path: image.reason for image in check_images(list(files.values()))}
    absent = {image.name: "is not on this machine" for image in chosen if image.file is None}
    return absent | {n: bad[printable(f)] for n, f in files.items() if printable(f) in bad}


def _maps(
    explainer: Explainer, images: Sequence[Chosen], prompts: Mapping[str, str]
) -> tuple[dict[str, QualityMap], dict[str, str]]:
    """Maps, or why there are none, by name."""
    if why := explainer.available[MAPS]:
        return {}, {image.name: why for image in images}
    maps: dict[str, QualityMap] = {}
    refused: dict[str, str] = {}
    starts = range(0, len(images), AT_ONCE)
    for start in track(starts, "Maps", unit=AT_ONCE, total=len(images)):
        made, bad = _answers(
            lambda files, texts, _: explainer.maps(files, texts),
            images[start : start + AT_ONCE],
            prompts,
        )
        maps, refused = maps | made, refused | bad
    return maps, refused


def _answers(
    ask: Callable[[list[Path], list[str] | None, list[str]], Sequence[Answer]],
    images: Sequence[Chosen],
    prompts: Mapping[str, str],
) -> tuple[dict[str, Answer], dict[str, str]]:
    """What `ask` says of files, prompts and ids, by image; of those that a model refuses, why."""
    refused: dict[str, str] = {}
    while images:
        files = [image.file or Path(image.name) for image in images]
        texts = [prompts[image.name] for image in images]
        try:
            ids = [image.image_id for image in images]
            answers = ask(files, texts if any(texts) else None, ids)
            return dict(zip([image.name for image in images], answers, strict=True)), refused
        except BadImagesError as error:
            reasons = {image.path: image.reason for image in error.bad}
            named = zip(images, map(printable, files), strict=True)
            bad = {image.name: reasons[file] for image, file in named if file in reasons}
            if not bad:
                raise
            refused |= bad
            images = [image for image in images if image.name not in bad]
    return {}, refused


def _draw(quality_map: QualityMap, file: Path, peak: float, path: Path) -> None:
    try:
        image = decode(file)
    except ImageError as error:  # it was there a moment ago
        raise AgiqaError(f"{error}; run `agiqa explain` again") from error
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    quality_map.overlay(image, peak=peak).save(path, optimize=True)


def _deletion_test(measured: Path) -> Any:
    """Read what the benchmark measured of the run's maps; None where it has not run."""
    try:
        return read_json(measured) if measured.is_file() else None
    except ValueError as error:
        raise AgiqaError(f"{measured}: damaged ({error}); remove it.") from error
