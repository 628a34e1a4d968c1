import itertools

import numpy as np
import pytest
from PIL import Image

from agiqa.data.datasets.degradations import DEGRADATIONS, PIECES, possible


def apply(kind: str, image: Image.Image, severity: float, seed: int = 0) -> Image.Image:
    return DEGRADATIONS[kind](image, severity, np.random.default_rng(seed))


def distance(first: Image.Image, second: Image.Image) -> float:
    return float(np.abs(np.asarray(first, np.float32) - np.asarray(second, np.float32)).mean())


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_more_severe_is_farther_from_the_original(photo: Image.Image, kind: str) -> None:
    far = [distance(photo, apply(kind, photo, s)) for s in (0.125, 0.4, 0.7, 1.0)]
    assert far[0] > 0.5
    assert all(later > 1.02 * earlier for earlier, later in itertools.pairwise(far)), far


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_size_mode_and_the_input_are_left_alone(photo: Image.Image, kind: str) -> None:
    before = photo.tobytes()
    spoilt = apply(kind, photo, 0.6)
    assert (spoilt.size, spoilt.mode) == (photo.size, "RGB")
    assert photo.tobytes() == before


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_same_dice_same_pixels(photo: Image.Image, kind: str) -> None:
    assert apply(kind, photo, 0.6, 7).tobytes() == apply(kind, photo, 0.6, 7).tobytes()


@pytest.mark.parametrize("kind", ["tiles_shuffled", "halves_swapped"])
def test_moved_pixels_are_the_original_ones(photo: Image.Image, kind: str) -> None:
    before, after = (
        np.sort(np.asarray(image).reshape(-1, 3), axis=0)
        for image in (photo, apply(kind, photo, 0.8))
    )
    assert (before == after).all()


@pytest.mark.parametrize("kind", PIECES)
def test_a_higher_severity_goes_on_from_a_lower_one(photo: Image.Image, kind: str) -> None:
    original, some, most = (
        np.asarray(image) for image in (photo, apply(kind, photo, 0.3), apply(kind, photo, 0.9))
    )
    untouched = (original == most).all(axis=2)
    also_before = (original == some).all(axis=2)
    assert also_before[untouched].mean() > 0.98


@pytest.mark.parametrize("kind", PIECES)
def test_possible_severities_are_those_that_differ(photo: Image.Image, kind: str) -> None:
    asked = np.linspace(0.125, 1, 60)
    given = [possible(kind, severity) for severity in asked]
    pixels = [apply(kind, photo, severity).tobytes() for severity in asked]
    for first, second in itertools.pairwise(zip(given, pixels, strict=True)):
        assert (first[0] == second[0]) == (first[1] == second[1])
    assert np.abs(np.array(given) - asked).max() <= 0.5 / PIECES[kind] + 1e-9
    assert possible("blur", 0.3) == 0.3
