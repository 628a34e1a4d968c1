"""Scorers as people call them: files, folders and images in memory; what is bad is left out.

What scores an image, a run or a published model, is each scorer's own.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import torch
from PIL import Image

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.data.datasets.folder import find_images
from agiqa.data.images import BadImage, BadImagesError, ImageError, as_rgb, image_id
from agiqa.store.row_ids import Source

if TYPE_CHECKING:
    from agiqa.runs.score import Score

log = logging.getLogger(__name__)

File = Path | str  # or a folder of them
Packed = bytes | bytearray | memoryview  # a file's content, which is no sequence of pictures
Picture = File | Image.Image | np.ndarray | torch.Tensor
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


class ImageScorer(ABC):
    """What all scorers have in common: how they are called, and what they refuse."""

    asks_image_prompt: bool  # whether it needs the text that an image was generated from
    title: str  # for messages
    label: str  # the run's name, or the scorer's
    provenance: Mapping[str, Any]  # target, scale (mos), experts

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Share it: nothing in it changes, and it holds models."""
        return self

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest score: of a run, the MOS in training."""
        mos = self.provenance["mos"]
        return float(mos["low"]), float(mos["high"])

    @abstractmethod
    def score_sources(self, sources: Mapping[str, Source]) -> dict[str, "Score"]:
        """Score images by row id, in order, through the ledger; for who has hashed or decoded them.

        Raises:
            BadImagesError: the models do not take some of them.
        """

    @abstractmethod
    def score_loaded(
        self, images: Sequence[Image.Image], image_prompts: Sequence[str] | None
    ) -> list["Score"]:
        """Score images in memory, with the generation prompts that the scorer asks for."""

    @abstractmethod
    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        """The images, of those by row id, that no model need look at again."""

    @overload
    def __call__(self, images: Image.Image, image_prompts: str | None = None) -> "Score": ...

    @overload  # a str is a sequence of str, too; here it is always one path
    def __call__(  # type: ignore[overload-overlap]
        self,
        images: torch.Tensor | np.ndarray | File,
        image_prompts: str | Sequence[str] | None = None,
        skip_bad: bool = False,
    ) -> "Score | list[Score]": ...

    @overload
    def __call__(
        self,
        images: Sequence[Picture],
        image_prompts: Sequence[str] | None = None,
        skip_bad: bool = False,
    ) -> list["Score"]: ...

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        image_prompts: str | Sequence[str] | None = None,
        skip_bad: bool = False,
    ) -> "Score | list[Score]":
        """Score images, in the order given; one image alone gives its score alone.

        Args:
            images: files and folders of them (their vectors are cached), or images in memory (not
                cached): Pillow's, arrays `(H, W, 3)` and `(B, H, W, 3)`, or tensors `(3, H, W)` and
                `(B, 3, H, W)`, uint8 or numbers from 0 to 1; not both in one call. Grey has one
                channel, RGBA four. A folder stands for the images in it, also where it is given
                alone.
            image_prompts: the text that each image was generated from; needed where the run's
                prompt set asks for it (`asks_image_prompt`), otherwise of no use. A single text is
                that of the image, or of all in the folder or tensor, that is given alone.
            skip_bad: leave out files that cannot be decoded or that the run's models do not take,
                with a warning each.

        Raises:
            BadImagesError: some files cannot be read, or the run's models do not take them.
            AgiqaError: no image or something else is given, or generation prompts are missing.
        """
        folder = isinstance(images, File) and Path(images).is_dir()
        is_one = isinstance(images, Picture | Packed)
        alone = is_one and not is_batch(images)
        given = images if isinstance(images, Iterable) and not is_one else [images]
        pictures = [picture for image in given for picture in as_pictures(image)]
        if not pictures:
            raise AgiqaError("No images to score.")
        if isinstance(image_prompts, str):
            image_prompts = [image_prompts] * (len(pictures) if is_one else 1)
        loaded = [image for image in pictures if isinstance(image, Image.Image)]
        files = [image for image in pictures if isinstance(image, File)]
        if loaded and files:
            raise AgiqaError("Give files or images in memory to score, not both in one call.")
        if loaded:
            scores = self.score_loaded(loaded, self._image_prompts(loaded, image_prompts))
        elif skip_bad and (folder or not alone):
            prompts = self._image_prompts(files, image_prompts)
            scores, bad = self.score_good([Path(file) for file in files], prompts)
            for image in bad:
                log.warning("%s is left out: it %s", image.path, image.reason)
        else:
            scores = self._score_files(files, image_prompts)
        return scores[0] if alone and not folder else scores

    def _score_files(
        self, files: Sequence[File], image_prompts: Sequence[str] | None
    ) -> list["Score"]:
        prompts = self._image_prompts(files, image_prompts)
        own: Sequence[str | None] = prompts or [None] * len(files)
        given, unreadable = list[Source](), list[ImageError]()
        for file, prompt in zip(map(Path, files), own, strict=True):
            try:
                given.append(Source(image_id(file), file, prompt))
            except ImageError as error:
                unreadable.append(error)
        if unreadable:
            bad = [BadImage(printable(error.path), error.reason) for error in unreadable]
            raise BadImagesError(str(unreadable[0]), bad)
        scores = self.score_sources({source.row_id: source for source in given})
        return [
            replace(scores[source.row_id], image=str(file))
            for file, source in zip(files, given, strict=True)
        ]

    def score_good(
        self, files: Sequence[Path], image_prompts: Sequence[str] | None = None
    ) -> tuple[list["Score"], list[BadImage]]:
        """Score files but for those that cannot be read or that the run's models do not take.

        These come second, with the reasons.

        As calling the scorer, which gives up where there is one; the vectors of all others are
        made first either way.
        """
        prompts: Sequence[str | None] = image_prompts or [None] * len(files)
        kept, bad = list(zip(files, prompts, strict=True)), list[BadImage]()
        while kept:
            given = [prompt for _, prompt in kept if prompt is not None]
            try:
                return self([file for file, _ in kept], given or None), bad
            except BadImagesError as error:
                bad += error.bad
                lost = {image.path for image in bad}
                before = len(kept)
                kept = [(file, prompt) for file, prompt in kept if printable(file) not in lost]
                if len(kept) == before:
                    raise
        return [], bad

    def _image_prompts(
        self, images: Sequence[object], image_prompts: Sequence[str] | None
    ) -> list[str] | None:
        """The generation prompts that the scorer needs: one for each image, or None."""
        if not self.asks_image_prompt:
            if image_prompts:
                log.warning("%s does not ask for the images' generation prompts.", self.title)
            return None
        prompts = list(image_prompts or ())
        if any(map(str.strip, prompts)) and len(prompts) != len(images):
            raise AgiqaError(
                f"Expected one generation prompt for each of {len(images)} images, found "
                f"{len(prompts)}."
            )
        without = [row for row, prompt in enumerate(prompts) if not prompt.strip()]
        if without or not prompts:
            names = [
                printable(images[row]) if isinstance(images[row], File) else f"image {row}"
                for row in without
            ]
            which = f"; {some(names, 3)} came without" if len(names) < len(images) and names else ""
            raise AgiqaError(
                f"{self.title} asks for the text that an image was generated from{which}: give "
                "--image-prompt TEXT, or a table that has it (--prompt-column NAME; in Python "
                "image_prompts, one for each image)."
            )
        return prompts


def is_batch(given: object) -> bool:
    """Whether it is a tensor or an array of several images, which has four axes."""
    return isinstance(given, torch.Tensor | np.ndarray) and given.ndim == 4


def as_pictures(given: object) -> Sequence[Path | str | Image.Image]:
    """The file, the files of a folder, or the images in memory as RGB.

    Raises:
        AgiqaError: it is something else, or an array or tensor of another kind.
    """
    match given:
        case Image.Image():
            return [as_rgb(given)]
        case torch.Tensor():
            return _of_tensor(given)
        case np.ndarray():
            return _of_array(given, "array", "(H, W, 3) or (B, H, W, 3)")
        case "":
            raise AgiqaError("Expected a path of an image to score, found an empty one.")
        case Path() | str():
            return find_images(Path(given)) if Path(given).is_dir() else [given]
    advice = ": open them with Pillow, as io.BytesIO(data)" if isinstance(given, Packed) else ""
    raise AgiqaError(
        "Expected paths, Pillow images, arrays or tensors to score, found "
        f"{type(given).__name__}{advice}."
    )


def _of_tensor(tensor: torch.Tensor) -> list[Image.Image]:
    """Images of a tensor `(3, H, W)` or `(B, 3, H, W)`; otherwise as `_of_array`."""
    if tensor.is_meta or tensor.layout != torch.strided:
        kind = "meta" if tensor.is_meta else tensor.layout
        raise AgiqaError(f"Expected a dense tensor with values, found {kind}.")
    values = tensor.detach()
    if values.ndim > 2:
        values = values.movedim(-3, -1)
    if values.is_floating_point():
        values = values.float()  # NumPy has no bfloat16
    shape = tuple(tensor.shape)
    return _of_array(values.cpu().numpy(), "tensor", "(3, H, W) or (B, 3, H, W)", shape)


def _of_array(
    array: np.ndarray, kind: str, expected: str, shape: tuple[int, ...] = ()
) -> list[Image.Image]:
    """Images of an array `(H, W, C)` or `(B, H, W, C)`: uint8, or numbers from 0 to 1.

    Args:
        array: of 3 channels, or 1 (grey) or 4 (RGBA); grey may be `(H, W)`.
        kind: what it was, for messages.
        expected: the shapes of its kind.
        shape: its own, where it was another than the array's.

    Raises:
        AgiqaError: another shape, another type, or numbers outside [0, 1].
    """
    values = array[..., None] if array.ndim == 2 and kind == "array" else array
    is_float = np.issubdtype(values.dtype, np.floating)
    is_image = values.ndim in (3, 4) and values.shape[-1] in CHANNELS and values.size
    if not is_image or not (is_float or values.dtype == np.uint8):
        first = kind == "array" and array.ndim in (3, 4) and array.shape[-3] in CHANNELS
        raise AgiqaError(
            f"Expected images as {'an array' if kind == 'array' else 'a tensor'} {expected} of "
            "uint8, or of numbers from 0 to 1, with 3 channels, 1 or 4, found "
            f"{shape or array.shape} of {array.dtype}"
            + (": np.moveaxis(array, -3, -1) puts channels last." if first else ".")
        )
    if is_float:
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise AgiqaError(
                f"Expected numbers from 0 to 1 in {kind}s of images, found {low:g} to {high:g}: "
                "clamp them, or bring them to this range."
            )
        values = (values.astype(np.float32) * 255).round().astype(np.uint8)
    rows = values.reshape(-1, *values.shape[-3:])
    rows = rows[..., 0] if rows.shape[-1] == 1 else rows
    return [as_rgb(Image.fromarray(np.ascontiguousarray(row))) for row in rows]
