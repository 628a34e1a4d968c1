"""Flips and turns: what the authors' code does on channels-first arrays, and what we mean to do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agiqa.stage2.paper.inputs import as_input, augment, draw
from agiqa.stage2.presets import RECIPES

PAPER, FIXED = RECIPES["paper"], RECIPES["paper-fixed"]


def _draws(turns: int, flipped: bool) -> np.ndarray:
    """The same of six images."""
    return np.tile([turns, int(flipped)], (6, 1))


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8))


def test_the_authors_flip_turns_images_upside_down(pixels: torch.Tensor) -> None:
    """Their np.fliplr gets (3, H, W), whose second axis is the height."""
    ours = augment(pixels, _draws(0, flipped=True), "vertical")
    for image, flipped in zip(pixels.numpy(), ours.numpy(), strict=True):
        np.testing.assert_array_equal(
            flipped, np.fliplr(image.transpose(2, 0, 1)).transpose(1, 2, 0)
        )
        np.testing.assert_array_equal(flipped, np.flipud(image))


def test_a_horizontal_flip_swaps_left_and_right(pixels: torch.Tensor) -> None:
    ours = augment(pixels, _draws(0, flipped=True), "horizontal")
    np.testing.assert_array_equal(ours.numpy(), pixels.numpy()[:, :, ::-1])


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turns_are_the_authors(pixels: torch.Tensor, turns: int) -> None:
    ours = augment(pixels, _draws(turns, flipped=False), "vertical")
    for image, turned in zip(pixels.numpy(), ours.numpy(), strict=True):
        theirs = np.rot90(image.transpose(2, 0, 1), turns, axes=(1, 2)).transpose(1, 2, 0)
        np.testing.assert_array_equal(turned, theirs)


def test_turned_first_then_flipped(pixels: torch.Tensor) -> None:
    ours = augment(pixels, _draws(1, flipped=True), "vertical")
    np.testing.assert_array_equal(ours[0].numpy(), np.flipud(np.rot90(pixels[0].numpy())))


def test_draws_have_the_authors_shares() -> None:
    turned, flips = draw(40_000, PAPER, np.random.default_rng(0)).T
    assert flips.mean() == pytest.approx(0.7, abs=0.01)
    assert (turned > 0).mean() == pytest.approx(0.7, abs=0.01)
    for turns in (1, 2, 3):
        assert (turned == turns).mean() == pytest.approx(0.7 / 3, abs=0.01)
    assert ((turned > 0) & (flips > 0)).mean() == pytest.approx(0.49, abs=0.01)


def test_each_is_a_switch_of_its_own() -> None:
    rng = np.random.default_rng(0)
    assert not draw(1000, FIXED, rng)[:, 0].any()
    assert draw(1000, FIXED, rng)[:, 1].mean() == pytest.approx(0.5, abs=0.05)
    assert not draw(1000, replace(PAPER, flip="none"), rng)[:, 1].any()
    assert draw(1000, replace(PAPER, flip="none"), rng)[:, 0].any()
    assert not draw(1000, replace(PAPER, augment=0.0), rng)[:, 1].any()
    unturned = draw(1000, replace(PAPER, rotate=False), np.random.default_rng(1))
    turned = draw(1000, PAPER, np.random.default_rng(1))
    np.testing.assert_array_equal(unturned[:, 1], turned[:, 1])  # one switch moves no other draw


def test_input_is_scaled_as_the_authors_scale_it(pixels: torch.Tensor) -> None:
    ours = as_input(pixels)
    theirs = (pixels.numpy().transpose(0, 3, 1, 2).astype(np.float64) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)
    assert as_input(torch.tensor([[[[0, 255, 0]]]], dtype=torch.uint8)).flatten().tolist() == [
        -1,
        1,
        -1,
    ]
