"""What the models' thread does with a batch: each image its own answer, whatever the others do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.images import decode, image_id
from agiqa.runs.create_scorer import create_scorer
from agiqa.runs.score import Score
from agiqa.store.row_ids import Source
from agiqa.views.server.worker import LEDGER, REMEMBERED, SCORED, Answer, RememberingScorer

GOOD = Score("a.png", 3.5, 2.5, 4.5, 0.1, {"visual": 1.0})


class Runs:
    """A run whose answers stand in the files; those it has given are in its ledger."""

    asks_image_prompt = False

    def __init__(self, answers: Mapping[str, Score | Exception]) -> None:
        self.answers, self.seen = answers, set[str]()

    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        return self.seen & set(sources)

    def __call__(self, images: Sequence[Image.Image], prompts: object) -> list[Score]:
        raise AgiqaError("not in memory either")

    def score_sources(self, sources: Mapping[str, Source]) -> dict[str, Score]:
        answers = {name: self.answers[name] for name in sources}
        for answer in answers.values():
            if isinstance(answer, Exception):
                raise answer
        self.seen |= set(sources)
        return {name: score for name, score in answers.items() if isinstance(score, Score)}

    def marked(self, score: Score, image_id: str) -> Score:
        return replace(score, trained_on=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / name, "PNG")
    return tmp_path


def _ask(remembering: RememberingScorer, folder: Path, names: str) -> list[Answer | Exception]:
    return remembering([Source(name, folder / name) for name in names])


def test_what_it_took_is_told(folder: Path) -> None:
    runs = Runs({"a": GOOD})
    assert _ask(RememberingScorer(runs, 10), folder, "a") == [Answer(GOOD, SCORED)]  # type: ignore[arg-type]
    again = RememberingScorer(runs, 10)  # type: ignore[arg-type]
    assert again.known("a") is None
    assert _ask(again, folder, "a") == [Answer(GOOD, LEDGER)]
    assert again.known("a") == Answer(GOOD, REMEMBERED)
    assert _ask(again, folder, "aa") == [Answer(GOOD, REMEMBERED)] * 2


def test_the_least_recently_asked_is_forgotten(folder: Path) -> None:
    remembering = RememberingScorer(Runs(dict.fromkeys("abc", GOOD)), 2)  # type: ignore[arg-type]
    _ask(remembering, folder, "ab")
    assert remembering.known("a")
    _ask(remembering, folder, "c")
    assert [bool(remembering.known(name)) for name in "abc"] == [True, False, True]


@pytest.mark.parametrize("error", [AgiqaError("no"), ValueError("a processor's"), OSError("full")])
def test_one_that_fails_fails_alone(folder: Path, error: Exception) -> None:
    found = _ask(RememberingScorer(Runs({"a": GOOD, "b": error, "c": GOOD}), 10), folder, "abc")  # type: ignore[arg-type]
    assert [found[0], found[2]] == [Answer(GOOD, SCORED)] * 2
    assert str(found[1]) == "not in memory either"


@pytest.mark.parametrize(
    "odd",
    [
        replace(GOOD, score=math.nan),
        replace(GOOD, disagreement=math.inf),
        replace(GOOD, gate={"visual": math.nan}),
        replace(GOOD, targets={"quality": 3.5, "alignment": -math.inf}),
    ],
)
def test_what_is_no_finite_number_is_no_score(folder: Path, odd: Score) -> None:
    remembering = RememberingScorer(Runs({"a": odd, "b": GOOD}), 10)  # type: ignore[arg-type]
    refused, good = _ask(remembering, folder, "ab")
    assert "no finite number" in str(refused)
    assert isinstance(good, Answer)
    assert remembering.known("a") is None


def test_a_decoded_image_is_neither_hashed_nor_decoded_again(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scored by the run itself, though its file is gone, to the bit as out of the file."""
    monkeypatch.chdir(workspace)
    scores = []
    for folder in ("one", "other"):  # a ledger each
        path = tmp_path / f"{folder}.png"
        Image.radial_gradient("L").convert("RGB").save(path)
        scorer = create_scorer("runs/mine/random", tmp_path / folder)
        if folder == "one":
            scores.append(scorer(path))
            continue
        name, image = image_id(path), decode(path)
        path.unlink()
        scores.append(scorer.score_sources({name: Source(name, path, None, image)})[name])
    assert replace(scores[1], image=scores[0].image) == scores[0]
