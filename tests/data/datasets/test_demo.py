from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import demo
from agiqa.data.datasets.degradations import DEGRADATIONS
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.data.splits.preparing import leaks
from agiqa.data.splits.protocols import default_protocol, make_splits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ImagesTable:
    return demo.prepare(tmp_path_factory.mktemp("demo"), seed=0)


def test_what_it_holds(made: ImagesTable) -> None:
    frame = made.frame
    assert len(frame) == 180
    assert frame["image_id"].nunique() == 180
    assert frame["group"].nunique() == len(demo.SOURCES) >= 8
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
    some = demo.SOURCES[2:5]  # each is spoilt by itself
    monkeypatch.setattr(demo, "SOURCES", some)
    frame = made.frame[made.frame["prompt"].isin([source.caption for source in some])]
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
