"""A scorer by whatever names it, and whatever it is given; images in memory are as their files."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import agiqa
from agiqa.core.errors import AgiqaError
from agiqa.data.images import decode
from agiqa.runs.image_scorer import ImageScorer
from agiqa.runs.lmm_scorer import LmmScorer
from agiqa.runs.score import Scorer, default_run
from kit.tiny_workspace import RUN


@pytest.fixture(scope="module")
def scorer(
    tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], ImageScorer]:
    """Gives scorers of the tiny run, with an empty ledger each."""

    def make() -> ImageScorer:
        return agiqa.create_scorer(tiny_workspace / RUN, tmp_path_factory.mktemp("ledger"))

    return make


@pytest.fixture(scope="module")
def files(tiny_workspace: Path) -> list[Path]:
    """Five images of one size."""
    return sorted((tiny_workspace / "images").glob("*.png"))[:5]


@pytest.fixture(scope="module")
def batch(files: list[Path]) -> torch.Tensor:
    """Their pixels, `(B, 3, H, W)` uint8."""
    pixels = np.stack([np.asarray(decode(path)) for path in files])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def without_names(scores: Any) -> list[tuple[float, ...]]:
    return [(one.score, one.low, one.high, one.disagreement, *one.gate.values()) for one in scores]


def test_a_tensor_of_a_pictures_pixels_scores_as_its_file_to_the_bit(
    scorer: Callable, files: list[Path], batch: torch.Tensor
) -> None:
    expected = without_names(scorer()(files))
    assert len(set(expected)) == 5
    ours = scorer()
    for tensor in (batch, batch / 255, batch.double() / 255, (batch / 255).bfloat16()):
        assert without_names(ours(tensor)) == expected
    assert without_names(ours(list(batch))) == expected
    assert without_names(ours([decode(path) for path in files])) == expected
    assert without_names(ours([batch[:2], *batch[2:]])) == expected
    array = batch.permute(0, 2, 3, 1).numpy()
    for arrays in (array, array / 255, (array / 255).astype(np.float16), list(array)):
        assert without_names(ours(arrays)) == expected
    clear = np.concatenate([array, np.full_like(array[..., :1], 255)], axis=-1)
    assert without_names(ours(clear)) == expected
    grey = array[0, ..., 0]
    of_grey = ours(Image.fromarray(grey)).score
    for one in (
        grey,
        grey[..., None],
        torch.from_numpy(grey)[None],
        np.stack([grey] * 3, -1) / 255,
    ):
        assert ours(one).score == of_grey
    alone = ours(batch[3])
    assert without_names([alone]) == without_names(scorer()([files[3]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.float(), r"from 0 to 1 in tensors of images, found 0 to 255: clamp them"),
        (lambda t: t / 255 - 0.1, "found -0.1 to 0.9"),
        (lambda t: t / 255 * torch.nan, "found nan to nan"),
        (lambda t: t / 255 + torch.inf, "found inf to inf"),
        (lambda t: t.int(), r"found \(5, 3, 24, 32\) of int32"),
        (
            lambda t: t.permute(0, 2, 3, 1),
            r"or \(B, 3, H, W\) of .* found \(5, 24, 32, 3\) of uint8",
        ),
        (lambda t: t[:, :2], r"found \(5, 2, 24, 32\)"),
        (lambda t: t[0, 0], r"found \(24, 32\)"),
        (lambda t: t[:0], r"found \(0, 3, 24, 32\)"),
        (lambda t: t[None], r"found \(1, 5, 3, 24, 32\)"),
        (lambda t: t / 255 * 1j, "of complex64"),
        (lambda t: t.to("meta"), "a dense tensor with values, found meta"),
        (lambda t: t.to_sparse(), "a dense tensor with values, found torch.sparse_coo"),
        (
            lambda t: t[0, :, :1, :1].expand(3, 1, 201),
            "201 x 1 pixels, one side more than 200 times",
        ),
    ],
)
def test_a_tensor_of_anything_else_is_one_line(
    scorer: Callable, batch: torch.Tensor, change: Callable, message: str
) -> None:
    with pytest.raises(AgiqaError, match=message) as caught:
        scorer()(change(batch))
    assert "\n" not in str(caught.value)


def test_what_names_a_scorer(
    tiny_workspace: Path, tiny_lmm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_workspace / RUN
    for what in (run, str(run), agiqa.load_run(run)):
        assert isinstance(agiqa.create_scorer(what), Scorer)
    published = default_run().parent / "nano-shows.yaml"
    own = tmp_path / "own.yaml"
    text = published.read_text().replace("model: nano", f"model: {tiny_lmm}")
    own.write_text(text.replace('"Yes"', "Y").replace("Yes", "Y"))
    for what in (own, str(own)):
        assert isinstance(agiqa.create_scorer(what), LmmScorer)
    shutil.copytree(run, tmp_path / "q-align")
    monkeypatch.chdir(tmp_path)
    assert isinstance(agiqa.create_scorer(Path("q-align")), Scorer)  # a path is no name
    assert isinstance(agiqa.create_scorer("./q-align"), Scorer)
    with pytest.raises(AgiqaError, match=r"Unknown scorer 'q-allign'; known: .*q-align \(8\.2 bil"):
        agiqa.create_scorer("q-allign")
    with pytest.raises(AgiqaError, match=r"runs/none: not a run; expected model\.safetensors"):
        agiqa.create_scorer("runs/none")
    with pytest.raises(AgiqaError, match="Expected a scorer's name or a run's folder, found 3"):
        agiqa.create_scorer(3)


def test_lists_of_anything_else_are_one_line(scorer: Callable, files: list[Path]) -> None:
    ours = scorer()
    for wrong in ([3], 3, [None]):
        with pytest.raises(AgiqaError, match=r"tensors to score, found (int|NoneType)"):
            ours(wrong)
    array = np.zeros((3, 24, 32), np.uint8)
    with pytest.raises(AgiqaError, match=r"found \(3, 24, 32\) of uint8: np.moveaxis"):
        ours(array)
    for wrong in (array.T.astype(int), array[None, None], array[:0]):
        with pytest.raises(AgiqaError, match=r"an array \(H, W, 3\) or \(B, H, W, 3\) of uint8"):
            ours(wrong)
    for data in (files[0].read_bytes(), [files[0].read_bytes()]):
        with pytest.raises(AgiqaError, match="found bytes: open them with Pillow"):
            ours(data)
    with pytest.raises(AgiqaError, match="Expected a path of an image to score, found an empty"):
        ours([files[0], ""])
    with pytest.raises(AgiqaError, match="has 1 x 201 pixels, one side more than 200 times"):
        ours(np.zeros((201, 1, 3), np.uint8))
    with Image.open(files[0]) as closed:
        pass
    with pytest.raises(AgiqaError, match="the image: was closed before its pixels"):
        ours([closed])
    with pytest.raises(AgiqaError, match="not both in one call"):
        ours([files[0], Image.new("RGB", (8, 8))])


def test_an_empty_name_is_not_the_default() -> None:
    with pytest.raises(AgiqaError, match="found an empty text"):
        agiqa.create_scorer("")
