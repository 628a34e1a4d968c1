import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agiqa.views.kit.thumbnails import LARGE, SIDES, TOO_MANY, Thumbnails, make_pictures, webp


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    made = []
    for row in range(12):
        made.append(tmp_path / f"{row}.png")
        grain = Image.fromarray(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8))
        grain.resize((500, 400), Image.Resampling.NEAREST).save(made[-1])
    return made


def opened(picture: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture)))


def size(pictures: Thumbnails) -> int:
    return sum(map(len, pictures.small))


def test_pictures_are_as_sharp_as_the_budget_allows(files: list[Path]) -> None:
    sides = []
    for budget in (10_000_000, 70_000, 30_000):
        made = make_pictures(files, budget, range(12))
        assert size(made) <= budget
        assert {max(opened(each).size) for each in made.small} == {made.side}
        assert opened(made.small[0]).format == "WEBP"
        sides.append(made.side)
    assert sides[0] == SIDES[0] > sides[1] > sides[2]


def test_the_important_ones_are_kept_where_not_all_fit(files: list[Path]) -> None:
    needed = sum(len(webp(Image.open(path), SIDES[-1])) * 4 / 3 for path in files)
    smallest = make_pictures(files, int(needed / 2), [7, 3, *range(12)])
    kept = [row for row, each in enumerate(smallest.small) if each]
    assert 3 < len(kept) < 7
    assert {7, 3} <= set(kept)
    assert smallest.side == SIDES[-1]
    assert set(smallest.problems) == set(range(12)) - set(kept)
    assert set(smallest.problems.values()) == {TOO_MANY}


def test_some_are_kept_larger(files: list[Path]) -> None:
    made = make_pictures(files, 10_000_000, range(12), large=[2, 5])
    assert set(made.large) == {2, 5}
    assert opened(made.large[5]).size == (LARGE, LARGE * 4 // 5)


def test_what_cannot_be_read_is_named_and_leaves_a_gap(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "4.png").write_bytes(b"no image")
    files[5] = tmp_path / "gone.png"
    given: list[Path | str] = [*files, "is not in the data set any more"]
    made = make_pictures(given, 10_000_000, range(13))
    assert [row for row, each in enumerate(made.small) if not each] == [4, 5, 12]
    assert "is not an image" in made.problems[4]
    assert made.problems[5] == "does not exist"
    assert made.problems[12] == "is not in the data set any more"


def test_no_pictures_at_all() -> None:
    assert make_pictures(["gone", "gone"], 1000, [0, 1]) == Thumbnails(
        0, ["", ""], {}, {0: "gone", 1: "gone"}
    )
    assert make_pictures([], 1000, []).small == []
