import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import demo
from agiqa.data.datasets.demo import DEGRADATIONS, PIECES, possible
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.data.splits.files import leaks
from agiqa.data.splits.protocols import default_protocol, make_splits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ImagesTable:
    return demo.prepare(tmp_path_factory.mktemp("demo"), seed=0)


def test_what_it_holds(made: ImagesTable) -> None:
    frame = made.frame
    assert len(frame) == 180
    assert frame["image_id"].nunique() == 180
    assert frame["group"].nunique() == len(demo.PHOTOGRAPHS) >= 8
    assert set(frame["generator"]) == {"original", *DEGRADATIONS}
    assert made.synthetic
    assert "CC BY" in made.licence
    originals = frame[frame["generator"] == "original"]
    assert (originals["quality"] == 5).all()
    spoilt = frame[frame["generator"] != "original"]["quality"]
    assert spoilt.between(1, 4.6).all()
    assert spoilt.between(1, 2).sum() > 30
    assert spoilt.between(3, 4).sum() > 30


def test_later_steps_score_lower(made: ImagesTable) -> None:
    spoilt = made.frame[made.frame["generator"] != "original"]
    for _, pair in spoilt.groupby(["group", "generator"]):
        by_step = pair.sort_values("path")["quality"]
        assert by_step.is_monotonic_decreasing
        assert by_step.iloc[0] - by_step.iloc[-1] > 0.3


def test_files_are_small_and_of_ordinary_size(made: ImagesTable) -> None:
    assert sum(path.stat().st_size for path in made.paths()) < 25e6
    for path in made.paths()[::17]:
        assert 320 <= max(decode(path).size) <= 512


def test_same_seed_same_bytes_other_seed_others(
    made: ImagesTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = dict(list(demo.PHOTOGRAPHS.items())[2:5])  # each is spoilt by itself
    monkeypatch.setattr(demo, "PHOTOGRAPHS", some)
    frame = made.frame[made.frame["prompt"].isin(some.values())]
    frame = frame.reset_index(drop=True)
    assert demo.prepare(tmp_path / "again", seed=0).frame.equals(frame)
    reseeded = demo.prepare(tmp_path / "again", seed=1)
    differ = reseeded.frame["image_id"] != frame["image_id"]
    assert not differ[frame["generator"] == "original"].any()
    assert differ[frame["generator"] != "original"].mean() > 0.9
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == ["images"]


def test_grouped_splits_keep_a_source_together(made: ImagesTable) -> None:
    assert default_protocol(made) == "grouped"
    for leak in leaks(make_splits(made, "grouped"), made):
        assert (leak.same_group, leak.same_file) == (0, 0)
        assert (leak.train, leak.val, leak.test) == (120, 30, 30)


def test_nothing_half_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AgiqaError, match="cannot write the demo images"):
        demo.prepare(tmp_path / "file" / "demo")


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
