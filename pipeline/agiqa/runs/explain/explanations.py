"""What `agiqa explain` writes into a run: overlays and explanations.json, which the report shows.

    maps/NNN-<image id>.png   an image of the data set with its map
    explanations.json         layout, dataset, available, images by path (overlay, weakest, reasons,
                              neighbours, problem), reasons_validity, and deletion: the deletion
                              test, where benchmarks/deletion_test.py left deletion_test.json

The folder is written beside its place and moved there whole.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from PIL import Image

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.json_text import write_json
from agiqa.core.progress import track
from agiqa.core.trees import MOST_JSON, read_json
from agiqa.data.images import BadImagesError, ImageError, check_images, decode, image_id
from agiqa.runs.explain.explainer import MAPS, NEIGHBOURS, REASONS, Explainer
from agiqa.runs.explain.quality_map import QualityMap
from agiqa.runs.explain.rated import tested
from agiqa.runs.explain.reason import Neighbour, Reason

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
    score: float | None  # mean over the splits that test it
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

    Args:
        run: evaluated.
        root: of the images; None: not on this machine.
        worst: how many of the largest misses.
        best: how many of the best hits, spread over the range of the MOS.
        lowest: how many of the lowest scores.

    Raises:
        AgiqaError: the run is not evaluated.
    """
    rows = tested(run)
    if rows is None:
        raise AgiqaError(
            f"{printable(run)}: not evaluated yet, so nobody knows its worst and best images; run "
            "`agiqa evaluate` first, or name images to explain."
        )
    miss = (rows["score"] - rows["mos"]).abs()
    parts = [miss.nlargest(worst).index, rows["score"].nsmallest(lowest).index]
    if best:
        bins = np.array_split(rows["mos"].sort_values(kind="stable").index, min(best, len(rows)))
        parts.append(pd.Index([miss[each].idxmin() for each in bins if len(each)]))
    names = list(dict.fromkeys(str(name) for part in parts for name in part))
    picked = rows.loc[names]
    return [
        Chosen(name, None if root is None else root / name, str(known), float(score), float(mos))
        for name, known, score, mos in zip(
            names, picked["image_id"], picked["score"], picked["mos"], strict=True
        )
    ]


def chosen_files(explainer: Explainer, files: Sequence[Path]) -> list[Chosen]:
    """Files to be explained, by the data set's name for those that are in it.

    Raises:
        AgiqaError: some cannot be decoded.
    """
    if bad := check_images(files):
        some = "; ".join(f"{each.path} {each.reason}" for each in bad[:3])
        raise AgiqaError(
            f"{len(bad)} of {len(files)} images cannot be explained: {some}. Repair them, or leave "
            "them out."
        )
    rated = explainer.rated
    rows = {} if rated is None else {name: row for row, name in enumerate(rated.ids)}
    found = []
    for file in files:
        name = image_id(file)
        if rated is None or name not in rows:
            found.append(Chosen(printable(file), file, name, None, None))
            continue
        path, mos = str(rated.table.frame["path"].iloc[rows[name]]), float(rated.mos[rows[name]])
        known = mos if np.isfinite(mos) else None
        found.append(Chosen(path, file, name, rated.scores.get(path), known))
    return found


def explain_run(
    explainer: Explainer,
    chosen: Sequence[Chosen],
    folder: Path,
    count: int = 5,
    image_prompt: str | None = None,
) -> Explanations:
    """Explain images and write the folder, replacing an older one.

    Args:
        explainer: of the run.
        chosen: the images.
        folder: to write; absent, empty, or an older one of these.
        count: neighbours of each.
        image_prompt: what all images were made from, for runs that ask for it.

    Raises:
        AgiqaError: nothing to explain, the folder holds something else, or nothing can be said.
    """
    if not chosen:
        raise AgiqaError("No images to explain: give some, or --worst, --best or --lowest.")
    require_replaceable(folder)
    if all(explainer.available.values()):
        raise AgiqaError(f"Nothing to explain with: {explainer.available[MAPS]}")
    unreadable = _problems(chosen)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        staged = Path(temporary) / "new"
        (staged / OVERLAYS).mkdir(parents=True)
        maps, unmapped = _maps(explainer, chosen, unreadable, image_prompt)
        problems = unreadable | unmapped
        peak = float(np.quantile([each.peak for each in maps.values()], 0.9)) if maps else 0.0
        images = _said(explainer, chosen, unreadable, count, image_prompt)
        explained = []
        for place, each in enumerate(chosen):
            overlay = None
            if place in maps and each.file is not None:
                overlay = f"{OVERLAYS}/{place:03d}-{each.image_id[:12]}.png"
                _draw(maps[place], each.file, peak, staged / overlay)
            explained.append(
                Explained(each, maps.get(place), overlay, *images[place], problems.get(place, ""))
            )
        content = _content(explainer, explained)
        write_json(staged / FILE, content)
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        staged.rename(folder)
    return Explanations(folder, explained, content)


def read_explanations(run: Path) -> dict[str, Any] | None:
    """What `agiqa explain` wrote into a run; None where it was not called.

    Raises:
        AgiqaError: damaged, of a newer layout, or an overlay's path leaves the folder.
    """
    path = run / FOLDER / FILE
    if not path.is_file():
        return None
    again = "run `agiqa explain` again"
    try:
        content: dict[str, Any] = read_json(path, 4 * MOST_JSON)
        layout, overlays = content["layout"], [e["overlay"] for e in content["images"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgiqaError(f"{printable(path)}: damaged ({error!r}); {again}.") from error
    if layout != LAYOUT:
        raise AgiqaError(
            f"{printable(path)}: layout {layout}, this agiqa reads {LAYOUT}; update it, or {again}."
        )
    for overlay in overlays:
        parts = PurePosixPath(overlay).parts if isinstance(overlay, str) else ()
        if overlay is not None and (len(parts) != 2 or parts[0] != OVERLAYS or ".." in parts):
            raise AgiqaError(
                f"{printable(path)}: expected overlays in {OVERLAYS}/, found {overlay!r}; {again}."
            )
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


def _problems(chosen: Sequence[Chosen]) -> dict[int, str]:
    """By place, why an image cannot be looked at."""
    here = [(place, each.file) for place, each in enumerate(chosen) if each.file is not None]
    found = {
        place: "is not on this machine" for place, each in enumerate(chosen) if each.file is None
    }
    bad = {each.path: each.reason for each in check_images([file for _, file in here])}
    return found | {place: bad[printable(file)] for place, file in here if printable(file) in bad}


def _maps(
    explainer: Explainer,
    chosen: Sequence[Chosen],
    problems: Mapping[int, str],
    image_prompt: str | None,
) -> tuple[dict[int, QualityMap], dict[int, str]]:
    """By place, the maps; or why there are none."""
    places = [place for place in range(len(chosen)) if place not in problems]
    if explainer.available[MAPS]:
        return {}, dict.fromkeys(places, explainer.available[MAPS])
    found: dict[int, QualityMap] = {}
    bad: dict[int, str] = {}
    for start in track(range(0, len(places), AT_ONCE), "Maps", unit=AT_ONCE, total=len(places)):
        some = places[start : start + AT_ONCE]

        def ask(places: Sequence[int]) -> list[QualityMap]:
            files = [chosen[place].file for place in places]
            prompts = None if image_prompt is None else [image_prompt] * len(places)
            return explainer.maps([file for file in files if file is not None], prompts)

        maps, refused = _of_good(ask, some, chosen)
        found |= maps
        bad |= refused
    return found, bad


def _of_good(
    ask: Callable[[Sequence[int]], Sequence[Answer]],
    places: Sequence[int],
    chosen: Sequence[Chosen],
) -> tuple[dict[int, Answer], dict[int, str]]:
    """By place what `ask` answers, but for images that a model does not take: of these, why."""
    bad: dict[int, str] = {}
    left = list(places)
    while left:
        try:
            return dict(zip(left, ask(left), strict=True)), bad
        except BadImagesError as error:
            reasons = {image.path: image.reason for image in error.bad}
            named = {place: reasons.get(printable(_file(chosen[place]))) for place in left}
            refused = {place: reason for place, reason in named.items() if reason is not None}
            if not refused:
                raise
            bad |= refused
            left = [place for place in left if place not in refused]
    return {}, bad


def _file(chosen: Chosen) -> Path:
    return chosen.file or Path(chosen.name)


def _said(
    explainer: Explainer,
    chosen: Sequence[Chosen],
    unreadable: Mapping[int, str],
    count: int,
    image_prompt: str | None,
) -> list[tuple[list[Reason], list[Neighbour]]]:
    """Reasons and neighbours of each image; from the cache also where its file is not here."""
    rated = explainer.rated
    known = set() if rated is None else set(rated.ids)
    asked = [
        place
        for place, each in enumerate(chosen)
        if each.image_id in known or place not in unreadable
    ]
    if not asked:
        return [([], []) for _ in chosen]

    def given(places: Sequence[int]) -> tuple[list[Path], list[str] | None, list[str]]:
        prompts = None if image_prompt is None else [image_prompt] * len(places)
        ids = [chosen[place].image_id for place in places]
        return [_file(chosen[place]) for place in places], prompts, ids

    def ask_reasons(places: Sequence[int]) -> list[list[Reason]]:
        return explainer.reasons(*given(places))

    def ask_neighbours(places: Sequence[int]) -> list[list[Neighbour]]:
        files, prompts, ids = given(places)
        return explainer.neighbours(files, count, prompts, ids)

    reasons: dict[int, list[Reason]] = {}
    neighbours: dict[int, list[Neighbour]] = {}
    if not explainer.available[REASONS]:
        reasons, _ = _of_good(ask_reasons, asked, chosen)
    if not explainer.available[NEIGHBOURS]:
        neighbours, _ = _of_good(ask_neighbours, asked, chosen)
    return [(reasons.get(p, []), neighbours.get(p, [])) for p in range(len(chosen))]


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
            each.chosen.name: {
                "overlay": each.overlay,
                "weakest": None if each.map is None else each.map.weakest,
                "reasons": [asdict(reason) for reason in each.reasons],
                "neighbours": [asdict(neighbour) for neighbour in each.neighbours],
                "problem": each.problem,
            }
            for each in images
        },
        "reasons_validity": [
            asdict(each) | {"low": each.low, "high": each.high} for each in explainer.validity
        ],
        "deletion": deletion,
    }
