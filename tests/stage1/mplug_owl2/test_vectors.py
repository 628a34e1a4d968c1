"""One vector an image and prompt, whatever stands beside it, overflows, or does not fit."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agiqa.core.errors import AgiqaError
from agiqa.stage1.mplug_owl2.processing import TokenizedText, normalise
from kit.lazy import Lazily

if TYPE_CHECKING:
    from agiqa.stage1.mplug_owl2.network import MplugOwl2Model

loading = Lazily("agiqa.stage1.mplug_owl2.loading")
modeling = Lazily("agiqa.stage1.mplug_owl2.network")
owl = Lazily("agiqa.stage1.mplug_owl2.extractor")

PROMPTS = (TokenizedText((1, 5, 9, 44), (7, 8)), TokenizedText((1, 60, 3), (7, 8)))
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model(tiny: Path) -> "MplugOwl2Model":
    return loading.load_model(tiny, "float32", "sdpa")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Six images, from faint to strong noise."""
    noise = np.random.default_rng(0).normal(size=(6, 3, 28, 28))
    loudness = np.linspace(10, 120, 6)[:, None, None, None]
    return np.clip(128 + noise * loudness, 0, 255).astype(np.uint8)


def plain(model: "MplugOwl2Model", pixels: np.ndarray, text: TokenizedText) -> np.ndarray:
    """Everything in one pass, as the reference does it."""
    ids = torch.tensor([[*text.before, modeling.IMAGE_TOKEN, *text.after]]).expand(len(pixels), -1)
    with torch.inference_mode():
        states = model(ids, normalise(torch.from_numpy(pixels))).last_hidden_state
    return states.mean(dim=1).numpy()


ids = st.lists(st.integers(0, 198), max_size=12).map(tuple)


@given(before=ids, after=ids)
def test_texts_of_any_length(
    model: "MplugOwl2Model", pixels: np.ndarray, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    text = TokenizedText((1, *before), after)
    ours = owl.SemanticVectors(model, [text], batch_size=2)(pixels[:2], [0])
    np.testing.assert_allclose(ours[:, 0], plain(model, pixels[:2], text), atol=2e-5)


def test_a_batch_equals_its_images_alone(model: "MplugOwl2Model", pixels: np.ndarray) -> None:
    vectors = owl.SemanticVectors(model, PROMPTS, batch_size=6)
    together = vectors(pixels, [0, 1])
    alone = np.concatenate([vectors(pixels[row : row + 1], [0, 1]) for row in range(6)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_do_not_depend_on_place_or_other_prompts(
    dtype: str, tiny: Path, pixels: np.ndarray
) -> None:
    """To the bit, at one shape of batch."""
    vectors = owl.SemanticVectors(loading.load_model(tiny, dtype, "sdpa"), PROMPTS, batch_size=6)
    both = vectors(pixels, [0, 1])
    assert np.array_equal(both[::-1], vectors(pixels[::-1].copy(), [0, 1]))
    for index in (0, 1):
        assert np.array_equal(both[:, [index]], vectors(pixels, [index]))


@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 1e-3), ("float16", 1e-5)])
def test_half_precision_stays_close(
    dtype: str, limit: float, tiny: Path, model: "MplugOwl2Model", pixels: np.ndarray
) -> None:
    exact = owl.SemanticVectors(model, PROMPTS, batch_size=6)(pixels, [0, 1])
    half = owl.SemanticVectors(loading.load_model(tiny, dtype, "sdpa"), PROMPTS, batch_size=6)(
        pixels, [0, 1]
    )
    norms = np.linalg.norm(exact, axis=-1) * np.linalg.norm(half, axis=-1)
    assert (1 - (exact * half).sum(axis=-1) / norms).max() < limit


def test_the_image_is_encoded_once_and_the_text_before_it_once(
    tiny: Path, pixels: np.ndarray
) -> None:
    model = loading.load_model(tiny, "float32", "sdpa")
    sizes: list[int] = []
    model.vision_model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    lengths: list[int] = []
    model.layers[0].register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    vectors = owl.SemanticVectors(model, PROMPTS, batch_size=3)
    vectors(pixels, [0, 1])
    assert sizes == [3, 3]
    assert lengths == [4, 8, 3, 8, 8, 8]  # both prefixes; then six visual tokens and two of text


@pytest.fixture(scope="module")
def loud(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last block's output grows until some vectors, not all, pass float16's 65,504."""

    def change(weights: Weights) -> None:
        weights["model.layers.2.mlp.down_proj.weight"] *= 3.05e4

    return build(tmp_path_factory.mktemp("loud") / "owl", change)


def raw(model: "MplugOwl2Model", pixels: np.ndarray) -> np.ndarray:
    """Vectors without the second, float32 pass."""
    with torch.inference_mode():
        images = normalise(torch.from_numpy(pixels)).to(model.dtype)
        visual = model.encode_images(images)
        vectors = owl.SemanticVectors(model, PROMPTS, batch_size=len(pixels))
        return torch.stack([vectors.pool(visual, p) for p in (0, 1)], dim=1).numpy()


def test_vectors_that_overflow_are_computed_again_in_float32(
    loud: Path, pixels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    half, exact = (loading.load_model(loud, dtype, "sdpa") for dtype in ("float16", "float32"))
    for weight, rounded in zip(exact.parameters(), half.parameters(), strict=True):
        weight.data = rounded.float()
    fine = np.isfinite(raw(half, pixels)).all(axis=-1)
    assert fine.any()
    assert not fine.all()
    assert not np.array_equal(fine[:, 0], fine[:, 1])  # one prompt's may, while the other's may not
    with caplog.at_level(logging.WARNING):
        ours = owl.SemanticVectors(half, PROMPTS, batch_size=6)(pixels, [0, 1])
    assert np.array_equal(ours[fine], raw(half, pixels)[fine])
    alone = owl.SemanticVectors(exact, PROMPTS, batch_size=1)(pixels, [0, 1])
    assert np.array_equal(ours[~fine], alone[~fine])
    assert [record.message[:37] for record in caplog.records] == [
        "A vector overflowed in float16: such "
    ]
    assert {weight.dtype for weight in half.parameters()} == {torch.float16}


def test_an_overflow_reaches_no_other_vector(loud: Path, pixels: np.ndarray) -> None:
    vectors = owl.SemanticVectors(
        loading.load_model(loud, "float16", "sdpa"), PROMPTS, batch_size=6
    )
    ours = vectors(pixels, [0, 1])
    assert np.array_equal(ours[::-1], vectors(pixels[::-1].copy(), [0, 1]))
    for index in (0, 1):
        assert np.array_equal(ours[:, [index]], vectors(pixels, [index]))


def test_text_that_overflows_by_itself(
    build: Callable[..., Path], tmp_path: Path, pixels: np.ndarray
) -> None:
    """Then every vector does, and every vector is right in the end."""

    def change(weights: Weights) -> None:
        weights["model.layers.2.mlp.down_proj.weight"] *= 6e4

    folder = build(tmp_path / "owl", change)
    half, exact = (loading.load_model(folder, dtype, "sdpa") for dtype in ("float16", "float32"))
    assert not np.isfinite(raw(half, pixels)).all(axis=-1).any()
    ours, wanted = (
        owl.SemanticVectors(model, PROMPTS, 6)(pixels, [0, 1]) for model in (half, exact)
    )
    np.testing.assert_allclose(ours, wanted, atol=2e-2)  # weights are rounded to float16


class Limited:
    """A model whose memory holds so many images at a time."""

    def __init__(self, model: "MplugOwl2Model", monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.sizes: list[int] = []
        whole = model.encode_images

        def encode(images: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(images))
            if len(images) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
            return whole(images)

        monkeypatch.setattr(model, "encode_images", encode)


@pytest.mark.parametrize(("start", "most", "sizes"), [(6, 3, [6, 3, 3]), (5, 3, [5, 2, 2, 2])])
def test_too_little_memory_halves_the_batch_and_says_so(
    start: int,
    most: int,
    sizes: list[int],
    model: "MplugOwl2Model",
    pixels: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = owl.SemanticVectors(model, PROMPTS, batch_size=6)(pixels, [0, 1])
    limited = Limited(model, monkeypatch, most)
    vectors = owl.SemanticVectors(model, PROMPTS, batch_size=start)
    with caplog.at_level(logging.WARNING):
        ours = vectors(pixels[:start], [0, 1])
    np.testing.assert_allclose(ours, wanted[:start], atol=1e-5)
    assert limited.sizes == sizes  # the last batch is filled up: one shape for all
    assert [record.message for record in caplog.records] == [
        f"Memory ran out with {start} images at a time (extraction): {start // 2} now."
    ]
    vectors(pixels[:start], [0])
    assert limited.sizes[len(sizes) :] == sizes[1:]  # and does not try the large batch again


def test_too_little_memory_for_one_image(
    model: "MplugOwl2Model", pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    Limited(model, monkeypatch, 0)
    with pytest.raises(
        AgiqaError, match=r"with 1 image at a time.*float16; finished vectors are kept"
    ):
        owl.SemanticVectors(model, PROMPTS, batch_size=4)(pixels[:4], [0])


def test_other_failures_are_not_taken_for_it(
    model: "MplugOwl2Model", pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(model, "encode_images", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        owl.SemanticVectors(model, PROMPTS, batch_size=4)(pixels[:4], [0])
