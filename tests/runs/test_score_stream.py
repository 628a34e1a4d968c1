"""A million images need no list of scores, and no kill takes one back: rows as they come."""

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.images import BadImage, BadImagesError, ImageError, decode
from agiqa.runs.image_inputs import read_inputs
from agiqa.runs.image_scorer import ImageScorer
from agiqa.runs.score import Score
from agiqa.runs.score_stream import BadInputError, ScoreRows, score_stream
from agiqa.runs.shards import ImageInput
from agiqa.store.row_ids import Source


class MeanBrightness(ImageScorer):
    """Scores an image by its mean pixel; notes which files it has been shown."""

    asks_image_prompt = False
    label = title = "brightness"
    provenance: Mapping[str, object] = {}

    def __init__(self, dies_after: int = 1 << 30) -> None:
        self.shown: list[str] = []
        self.dies_after = dies_after

    def score_sources(self, sources: Mapping[str, Source]) -> dict[str, Score]:
        if len(self.shown) >= self.dies_after:
            raise KeyboardInterrupt
        self.shown += sources
        scores, bad = {}, []
        for name, source in sources.items():
            try:
                mean = float(np.asarray(decode(source.path)).mean())
            except ImageError as error:
                bad.append(BadImage(str(source.path), error.reason))
            else:
                scores[name] = Score("", mean, None, None, 0.0, {})
        if bad:
            raise BadImagesError("Bad.", bad)
        return scores

    def score_loaded(
        self, images: Sequence[Image.Image], image_prompts: Sequence[str] | None
    ) -> list[Score]:
        raise NotImplementedError

    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        return set()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten grey images, 00.png the darkest."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(10):
        Image.new("RGB", (8, 8), (number * 20,) * 3).save(images / f"{number:02d}.png")
    return images


def ranked(rows: ScoreRows) -> list[str]:
    return [Path(row["image"]).stem for row in rows.ranked()]


def stream(images: Path | str, scorer: ImageScorer, rows: ScoreRows, skip_bad: bool = False) -> int:
    given = read_inputs([str(images)])
    return score_stream(given, lambda: scorer, rows, skip_bad=skip_bad, chunk=4)


def test_best_first_whatever_the_container(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    (tmp_path / "list.txt").write_text("".join(f"images/{n:02d}.png\n" for n in range(10)))
    for images in (folder, tmp_path / "s.tar", tmp_path / "list.txt"):
        with ScoreRows(None, "") as rows:
            assert stream(images, MeanBrightness(), rows) == 10
            names = [name.rpartition(":")[2] for name in ranked(rows)]
            assert names == [f"{number:02d}" for number in reversed(range(10))]
            assert len(list(rows.ranked(3))) == 3


def test_after_a_kill_only_the_rest_is_scored(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    killed = MeanBrightness(dies_after=8)
    with ScoreRows(out, "run") as rows, pytest.raises(KeyboardInterrupt):
        stream(folder, killed, rows)
    assert len(killed.shown) == 8
    again = MeanBrightness()
    with ScoreRows(out, "run") as rows:
        assert len(rows) == 8
        stream(folder, again, rows)
        assert ranked(rows) == [f"{number:02d}" for number in reversed(range(10))]
    assert len(again.shown) == 2
    with pytest.raises(AgiqaError, match=r"unfinished scores of another run or other options"):
        ScoreRows(out, "other run")
    with ScoreRows(out, "run") as rows:
        rows.finish()
    assert sorted(tmp_path.iterdir()) == [folder]


def test_what_holds_no_row_is_not_left(folder: Path, tmp_path: Path) -> None:
    with ScoreRows(tmp_path / "s.csv", "bad/") as rows, pytest.raises(KeyboardInterrupt):
        stream(folder, MeanBrightness(dies_after=0), rows)
    assert sorted(tmp_path.iterdir()) == [folder]
    killed = ScoreRows(tmp_path / "s.csv", "bad/")  # and never closed
    with ScoreRows(tmp_path / "s.csv", "pics/") as rows:
        stream(folder, MeanBrightness(), rows)
    assert len(killed) == 10
    killed.close()


def test_what_changes_meanwhile_is_scored_anew(folder: Path, tmp_path: Path) -> None:
    with ScoreRows(tmp_path / "s.csv", "") as rows:
        stream(folder, MeanBrightness(), rows)
        Image.new("RGB", (9, 9), "white").save(folder / "00.png")
        (folder / "09.png").unlink()
        stream(folder, MeanBrightness(), rows)
        assert ranked(rows) == ["00", *(f"{number:02d}" for number in range(8, 0, -1))]


def test_one_bad_image_ends_no_others_work(folder: Path) -> None:
    (folder / "07.png").write_bytes(b"no image")
    with ScoreRows(None, "") as rows:
        stream(folder, MeanBrightness(), rows)  # in the second chunk: found when it comes
        assert len(rows) == 9
        assert [Path(bad.path).name for bad in rows.bad()] == ["07.png"]
    (folder / "01.png").write_bytes(b"no image")
    scorer = MeanBrightness()
    with ScoreRows(None, "") as rows, pytest.raises(BadInputError) as found:
        stream(folder, scorer, rows)  # among the first: before any work
    assert scorer.shown == []
    assert [Path(bad.path).name for bad in found.value.bad] == ["01.png"]
    with ScoreRows(None, "") as rows:
        stream(folder, MeanBrightness(), rows, skip_bad=True)
        assert (len(rows), len(rows.bad())) == (8, 2)


class Prompted(MeanBrightness):
    """Asks for the prompt, and notes it."""

    asks_image_prompt = True

    def score_sources(self, sources: Mapping[str, Source]) -> dict[str, Score]:
        self.prompts = [source.image_prompt for source in sources.values()]
        return super().score_sources(sources)


def test_an_image_without_the_prompt_that_is_asked_for_is_a_bad_one(
    folder: Path, tmp_path: Path
) -> None:
    def score(scorer: ImageScorer, rows: ScoreRows, **options: Any) -> None:
        given = read_inputs([str(tmp_path / "t.csv")])
        score_stream(given, lambda: scorer, rows, chunk=4, **options)

    lines = [f"images/{n:02d}.png,{'' if n == 1 else n}" for n in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(["image,prompt", *lines]))
    scorer = Prompted()
    with ScoreRows(None, "") as rows, pytest.raises(BadInputError) as raised:
        score(scorer, rows)
    assert [Path(bad.path).name for bad in raised.value.bad] == ["01.png"]
    assert "--prompt-column" in raised.value.bad[0].reason
    with ScoreRows(tmp_path / "out.csv", "") as rows:
        score(scorer, rows, skip_bad=True)
        assert (len(rows), len(rows.bad())) == (7, 1)
        lines[1] += "x"
        (tmp_path / "t.csv").write_text("\n".join(["image,prompt", *lines]))
        score(scorer, rows, skip_bad=True)  # what was mended is scored
        assert (len(rows), scorer.prompts) == (8, ["x"])
    with ScoreRows(None, "") as rows:
        score(scorer, rows, image_prompt="a dog")
        assert {row["columns"]["prompt"] for row in rows.ranked()} == {"a dog"}
    assert scorer.prompts == ["a dog"] * 4
    (tmp_path / "t.csv").write_text("image\nimages/00.png\n")
    with ScoreRows(None, "") as rows, pytest.raises(AgiqaError, match="--image-prompt TEXT, or a"):
        score(scorer, rows, skip_bad=True)
    with pytest.raises(AgiqaError, match=r"generated from; \S*00.png came without: give"):
        scorer([folder / "00.png", folder / "01.png"], [" ", "x"])


def test_what_was_read_before_an_error_is_scored(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    given = read_inputs([str(folder), str(tmp_path / "t.csv")])
    with ScoreRows(None, "") as rows:
        with pytest.raises(AgiqaError, match="expected a column of images"):
            score_stream(given, MeanBrightness, rows, chunk=8)
        assert len(rows) == 10


def test_bytes_leave_nothing_on_the_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    image = ImageInput("x:a.png", None, (folder / "03.png").read_bytes(), "a prompt", {"seed": "1"})
    with ScoreRows(None, "") as rows:
        score_stream([image, image], MeanBrightness, rows)
        first, second = rows.ranked()
        assert first == second
        assert (first["image"], first["score"]) == ("x:a.png", 60.0)
        assert first["columns"] == {"prompt": "a prompt", "seed": "1"}
        assert rows.has_values("prompt")
    assert list(spool.iterdir()) == []


def test_rows_that_are_no_rows_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "s.csv.unfinished").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(AgiqaError, match="expected unfinished scores, or a place to keep them"):
        ScoreRows(tmp_path / "s.csv", "")


def test_columns_in_which_something_stands(tmp_path: Path) -> None:
    with ScoreRows(tmp_path / "s.csv", "about") as rows:
        rows.add([(0, "", 1.0, {"columns": {"model": "", 'a"b': ""}})])
        rows.add([(1, "", 1.0, {"columns": {"model": "x", 'a"b': ""}})])
        assert rows.has_values("model")
        assert not rows.has_values('a"b')
        assert not rows.has_values("absent")


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    import tracemalloc

    peaks = []
    for count in (1_000, 8_000):
        with ScoreRows(tmp_path / f"{count}.csv", "") as rows:
            tracemalloc.start()
            for start in range(0, count, 1000):
                content = {"image": "a.png", "score": 1.0}
                rows.add((n, str(n), n / 7, content) for n in range(start, start + 1000))
            assert sum(1 for _ in rows.ranked()) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
