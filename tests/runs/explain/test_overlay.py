"""The picture of a map: which side is which colour, its size, its legend."""

import numpy as np
import pytest
from PIL import Image

from agiqa.runs.explain import QualityMap

GREY = (128, 128, 128)


@pytest.fixture
def half() -> QualityMap:
    """Left pulls down, right pulls up."""
    values = np.array([[-0.2, 0.1]], dtype=np.float32).repeat(4, axis=0).repeat(2, axis=1)
    return QualityMap(values, "by hand")


def test_orange_pulls_down_and_blue_up(half: QualityMap) -> None:
    image = Image.new("RGB", (120, 80), GREY)
    drawn = half.overlay(image)
    assert (drawn.mode, drawn.width) == ("RGB", 120)
    red, _, blue = np.asarray(drawn, dtype=int)[40, 12]
    assert red > blue + 60
    red, _, blue = np.asarray(drawn, dtype=int)[40, 108]
    assert blue > red + 20
    assert half.peak == pytest.approx(0.2)
    assert half.weakest.endswith("left")


def test_a_shared_peak_pales_a_weak_map(half: QualityMap) -> None:
    image = Image.new("RGB", (120, 80), GREY)
    strong, weak = (half.overlay(image, peak) for peak in (0.2, 20.0))
    colour = [np.ptp(np.asarray(each, dtype=int)[40, 12]) for each in (strong, weak)]
    assert colour[0] > 100
    assert colour[1] < 5


def test_a_legend_stands_below_a_picture_wide_enough(half: QualityMap) -> None:
    framed = half.overlay(Image.new("RGB", (300, 80), GREY))
    assert framed.width == 300
    assert framed.height > 80
    strip = np.asarray(framed, dtype=int)[80:]
    assert (strip[..., 0] - strip[..., 2]).max() > 60  # orange is named
    assert (strip[..., 2] - strip[..., 0]).max() > 60  # and blue
    assert half.overlay(Image.new("RGB", (40, 40), GREY)).size == (40, 40)


def test_a_flat_map_and_other_modes(half: QualityMap) -> None:
    flat = QualityMap(np.zeros((3, 3), dtype=np.float32), "nothing")
    image = Image.new("RGB", (30, 30), GREY)
    assert np.ptp(np.asarray(flat.overlay(image), dtype=int), axis=2).max() == 0  # grey
    assert half.overlay(Image.new("L", (120, 80))).mode == "RGB"


def test_colours_are_the_maps_alone(half: QualityMap) -> None:
    """On orange, on black and on white the left is orange and the right is blue."""
    for ground in ((255, 140, 0), (0, 0, 0), (255, 255, 255)):
        drawn = np.asarray(half.overlay(Image.new("RGB", (120, 80), ground)), dtype=int)
        assert drawn[40, 12, 0] - drawn[40, 12, 2] > 60
        assert drawn[40, 108, 2] - drawn[40, 108, 0] > 20
