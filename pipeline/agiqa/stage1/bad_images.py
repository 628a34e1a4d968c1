"""Images that an extraction cannot use: found before the work or in it, told in one line.

Of what files and prompts tell, a line stops everything before any work; of what the model does not
take, it comes when all others are done. Left out instead are they on request (`--skip-bad`).
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from agiqa.core.errors import printable
from agiqa.data.images import BadImage, BadImagesError, ImageError, image_id
from agiqa.stage1.extractors import Extractor
from agiqa.stage1.ledger_rows import Job, images_of
from agiqa.store.row_ids import Source

NO_PROMPT = "has no generation prompt, which the prompt set asks for"


class BadImages:
    """The bad images of an extraction, by id with the reason.

    Args:
        dataset: its name, for messages.
        sources: the images by id.
        skip: leave bad images out instead of raising.
        whole: whether the extraction is of all the images; then one of them has to be left.
    """

    def __init__(
        self, dataset: str, sources: Mapping[str, Source], skip: bool, whole: bool
    ) -> None:
        self.dataset, self.sources = dataset, sources
        self.reasons: dict[str, str] = {}
        self._skip, self._whole = skip, whole

    def add(self, reasons: Mapping[str, str], what: str, advice: str) -> None:
        """Note bad images, by id the reason.

        Raises:
            BadImagesError: they are not to be left out, or none would be left.
        """
        self.reasons |= reasons
        none_left = self._whole and len(self.reasons) == len(self.sources)
        if reasons and (not self._skip or none_left):
            images = bad_images(self.sources, reasons)
            rest = "; none would be left." if none_left else ", or leave them out with --skip-bad."
            raise BadImagesError(
                f"{len(reasons)} images of '{self.dataset}' {what}: {some_bad(images)}. "
                f"{advice}{rest}",
                images,
            )

    def good(self, ids: Sequence[str]) -> list[str]:
        """Those of the images that are not bad."""
        return [name for name in ids if name not in self.reasons]


def without_prompt(
    sources: Mapping[str, Source], jobs: Sequence[Job], extractor: Extractor
) -> dict[str, str]:
    """By id, images of the jobs without the generation prompt that a wanted vector asks for."""
    asking = {p for p, vector in enumerate(extractor.vectors) if vector.asks_image_prompt}
    return {
        name: NO_PROMPT
        for job in jobs
        if asking.intersection(job.wanted)
        for name in job.image_ids
        if not (sources[name].image_prompt or "").strip()
    }


def changed(sources: Mapping[str, Source], jobs: Sequence[Job], workers: int) -> dict[str, str]:
    """By id, why the file of an image of the jobs is not the one that was prepared."""

    def check(name: str) -> tuple[str, str | None]:
        try:
            same = image_id(sources[name].path) == sources[name].image_id
        except ImageError as error:
            return name, error.reason
        return name, None if same else "has changed since prepare"

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return {name: why for name, why in pool.map(check, images_of(jobs)) if why is not None}


def bad_images(sources: Mapping[str, Source], bad: Mapping[str, str]) -> tuple[BadImage, ...]:
    """The images of which reasons are given by id."""
    return tuple(BadImage(printable(sources[name].path), why) for name, why in bad.items())


def some_bad(images: Sequence[BadImage], most: int = 3) -> str:
    """The first few with their reasons, and how many more; a reason of every bad image once."""
    reasons = {image.reason for image in images}
    has_one_reason = reasons <= {NO_PROMPT} or (len(images) > 1 and len(reasons) == 1)
    shown = [
        image.path if has_one_reason else f"{image.path}: {image.reason}" for image in images[:most]
    ]
    more = [f"and {len(images) - most} more"] if len(images) > most else []
    reason = f" ({images[0].reason})" if has_one_reason and reasons != {NO_PROMPT} else ""
    return "; ".join([*shown, *more]) + reason
