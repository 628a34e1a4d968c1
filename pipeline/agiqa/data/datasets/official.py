"""Official downloads: find their parts, hold labels against images and scores against the scale.

Each adapter says what it looks for; here is what becomes of a part that is absent, an image without
a label, a label without an image, a score off the scale, and a number of images that is not the
official one. All of it is cheap and comes before the first image is decoded.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.data.datasets.build import build_table
from agiqa.data.datasets.facts import Facts, Range
from agiqa.data.datasets.labels import refuse_duplicates
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import IMAGE_SUFFIXES, BadImage

logger = logging.getLogger(__name__)

ROUNDING = 0.006  # published ranges have two or three decimals


@dataclass(frozen=True)
class Download:
    """What an adapter reads of an official download, before any image is opened."""

    facts: Facts
    root: Path  # the folder that paths are relative to
    rows: pd.DataFrame  # as `build_table` takes them, with all of the facts' targets
    present: Sequence[str]  # paths of the images where there should be no others than the rows'
    labels: Path  # the (first) file that the rows are from, for messages
    deviations: Mapping[str, str] = field(default_factory=dict)  # as `build_table` takes them
    raters: Mapping[str, str] = field(default_factory=dict)  # likewise
    scale: Range | None = None  # of the scores, where a release has another than the facts'


def bases(source: Path, facts: Facts, *folders: str) -> list[Path]:
    """The folder given and those of the archive's own names that are in it.

    Raises:
        AgiqaError: there is no such folder.
    """
    if not source.is_dir():
        found = "a file" if source.exists() else "none"
        raise AgiqaError(
            f"{source}: expected the folder of the unpacked {facts.title}, found {found}: "
            f"{facts.how}"
        )
    return [source, *(source / name for name in folders if (source / name).is_dir())]


def find_file(candidates: Sequence[Path], what: str, facts: Facts, source: Path) -> Path:
    """The first of the candidates that is a file.

    Raises:
        AgiqaError: says what was looked for, what is there, and where the official one is.
    """
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise absent(source, what, facts)
    return found


def absent(source: Path, what: str, facts: Facts) -> AgiqaError:
    """The error for a part of the download that is not in the folder."""
    there = some(sorted(printable(p.name) for p in source.iterdir())) or "nothing"
    return AgiqaError(
        f"{source}: expected {what} of {facts.title}, found {there}: give the folder that the "
        f"official download unpacks to; {facts.how}"
    )


def images_in(root: Path, folders: Iterable[str]) -> list[str]:
    """Paths, relative to the root, of the images directly in its folders ("" is the root)."""
    return [
        f"{folder}/{path.name}" if folder else path.name
        for folder in folders
        for path in sorted((root / folder).iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]


class Prepare(Protocol):
    """An adapter's `prepare`."""

    def __call__(
        self,
        source: Path,
        *,
        skip_bad: bool = False,
        workers: int | None = None,
        on_progress: Callable[[int, int], object] | None = None,
    ) -> ImagesTable:
        """Read the unpacked official download into an images table.

        Args:
            source: its folder.
            skip_bad: leave images without a label, labels without an image, and bad images out
                instead of stopping.
            workers: threads; None takes a few more than there are cores.
            on_progress: called as (done, total) after each image.

        Raises:
            AgiqaError: a part is absent, labels and images disagree, a score is off the scale, or
                an image cannot be used.
        """


def preparing(read: Callable[[Path], Download]) -> Prepare:
    """The `prepare` of the adapter that reads downloads with `read`."""

    def prepare(
        source: Path,
        *,
        skip_bad: bool = False,
        workers: int | None = None,
        on_progress: Callable[[int, int], object] | None = None,
    ) -> ImagesTable:
        found = read(source)
        extra = _check(found, skip_bad)
        table = build_table(
            found.facts.name,
            found.root,
            found.rows,
            list(found.facts.targets),
            licence=found.facts.licence,
            source=found.facts.source,
            scale=found.scale or found.facts.scale,
            deviations=found.deviations,
            raters=found.raters,
            skip_bad=skip_bad,
            workers=workers,
            on_progress=on_progress,
        )
        return dataclasses.replace(table, skipped=(*table.skipped, *extra))

    return prepare


def _check(found: Download, skip_bad: bool) -> list[BadImage]:
    """All that can be checked without opening an image; gives the images without a label."""
    facts, rows, labels = found.facts, found.rows, found.labels
    if rows.empty:
        raise AgiqaError(f"{labels}: expected one row an image, found only the header")
    refuse_duplicates(rows["path"], labels)
    _check_scores(found, found.scale or facts.scale)
    extra = _disagreement(found, skip_bad)
    if len(rows) != facts.images:
        logger.warning(
            "%s: expected %s images, the official number; the labels list %s",
            facts.name,
            f"{facts.images:,}",
            f"{len(rows):,}",
        )
    return extra


def _disagreement(found: Download, skip: bool) -> list[BadImage]:
    """Images without a label, to be left out; labels without an image are for `build_table`."""
    root, labels, title = found.root, found.labels, found.facts.title
    listed = list(found.rows["path"])
    there, wanted = set(found.present), set(listed)
    missing = [path for path in listed if path not in there and not (root / path).exists()]
    if len(missing) == len(listed):
        raise AgiqaError(
            f"{root}: none of the {len(listed):,} images that {labels.name} lists is here, such as "
            f"{some([printable(path) for path in listed], 1)}: unpack the images of {title} "
            "there"
        )
    extra = [printable(path) for path in found.present if path not in wanted]
    if (missing or extra) and not skip:
        said = []
        if missing:
            names = some([printable(path) for path in missing])
            are = "does" if len(missing) == 1 else "do"
            said.append(
                f"{len(missing):,} of the {len(listed):,} that it lists {are} not exist ({names})"
            )
        if extra:
            has = "has" if len(extra) == 1 else "have"
            said.append(f"{len(extra):,} {has} no row in it ({some(extra)})")
        raise AgiqaError(
            f"{root}: the images and {labels.name} disagree: {'; '.join(said)}. Unpack all of "
            f"{title} again, or leave these out with --skip-bad"
        )
    return [BadImage(path, f"has no row in {labels.name}") for path in extra]


def _check_scores(found: Download, scale: Range) -> None:
    facts, rows, labels = found.facts, found.rows, found.labels
    factor = scale[1] / facts.scale[1]
    for target, published in facts.targets.items():
        scores = rows[target]
        wrong = rows[(scores < scale[0]) | (scores > scale[1])]
        if len(wrong):
            pairs = zip(wrong["path"], wrong[target], strict=True)
            named = [f"{printable(path)}: {score:g}" for path, score in pairs]
            raise AgiqaError(
                f"{labels}: {target} must be from {scale[0]:g} to {scale[1]:g}; found others in "
                f"{len(wrong):,} of {len(rows):,} rows ({some(named)}): take the labels of the "
                f"official {facts.title}, {facts.address}"
            )
        low, high = (end * factor for end in published)
        if scores.min() < low - ROUNDING * factor or scores.max() > high + ROUNDING * factor:
            logger.warning(
                "%s: %s is %g…%g, the published range is %g…%g: other labels than the official?",
                facts.name,
                target,
                scores.min(),
                scores.max(),
                low,
                high,
            )
