"""A run on some of an extractor's vectors, on answers, and on prompts that ask for the image's own.

The extractor here is a tiny real one: what it says of an image follows from its pixels and from
its generation prompt by a table of random weights.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import agiqa
from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable, read_table
from agiqa.data.images import decode
from agiqa.runs import score as scoring
from agiqa.stage1.extractors import Sample, Vector
from agiqa.stage1.extractors.contract import batch
from agiqa.store import write_pack
from kit.command import agiqa as call
from kit.command import refusal

SIDE, WIDTH, COUNT = 4, 5, 40
PROMPT = "a photo"  # of all images, so that the run's and the scorer's vectors can be compared


class Looker:
    """Two poolings of two prompts, one of which asks for the image's own; five answers each."""

    name, width, batch_size, precision = "looker", WIDTH, 8, "float32"

    def __init__(self) -> None:
        names = ("sharp.mean", "sharp.last", "match.mean", "match.last", "sharp", "match")
        self.vectors = tuple(
            Vector(
                name,
                {"vector": name, "answers": place > 3},
                WIDTH,
                "answers" if place > 3 else "",
                name.startswith("match"),
            )
            for place, name in enumerate(names)
        )
        self.wanted: set[int] = set()

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        pixels = np.asarray(image.resize((SIDE, SIDE)), dtype=np.float32).ravel() / 255
        asked = zlib.crc32((image_prompt or "").encode()) / 2**32
        return Sample({"pixels": np.append(pixels, asked)[None]})

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        self.wanted |= set(wanted)
        pixels = batch(samples)["pixels"]
        made = []
        for place in wanted:
            weights = np.random.default_rng(place).normal(size=(SIDE * SIDE * 3 + 1, WIDTH))
            if not self.vectors[place].asks_image_prompt:
                weights[-1] = 0
            states = pixels @ weights
            answers = np.exp(states) / np.exp(states).sum(axis=1, keepdims=True)
            made.append(answers if self.vectors[place].store else states)
        return [rows.astype(np.float32) for rows in made]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images, their labels and settings."""
    folder = tmp_path_factory.mktemp("looked-at")
    (folder / "images").mkdir()
    lines, rng = ["path,quality"], np.random.default_rng(0)
    for row in range(COUNT):
        pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{row:02d}.png")
        lines.append(f"{row:02d}.png,{rng.uniform(1, 5):.3f}")
    (folder / "images/labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "params.yaml").write_text(
        "semantic: {name: looker}\nvisual: {name: eye}\n"
        "fit: {components: 8, semantic_components: 4, epochs: 2}\nsplits: {count: 2}\n"
    )
    return folder


@pytest.fixture
def data(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImagesTable:
    """A prepared data set with the stores that the extractor would leave, and no model at all."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    monkeypatch.setattr(scoring, "semantic_extractor", lambda settings: Looker())
    monkeypatch.setattr(scoring, "VisionExtractor", Eye)
    if Path("cache/mine/eye.zarr").exists():
        return read_table(Path("cache/mine"))
    call("prepare", "mine", "--from", "images/labels.csv", "--score-column", "quality")
    table = read_table(Path("cache/mine"))
    looker, ids = Looker(), list(table.frame["image_id"])
    samples = [looker.preprocess(decode(path), PROMPT) for path in table.paths()]
    for store, places in (("looker", range(4)), ("looker-answers", (4, 5))):
        chosen = [looker.vectors[place] for place in places]
        _pack(store, ids, chosen, np.stack(looker.extract(samples, places), axis=1))
    seen = batch(samples)["pixels"][:, None, :-1]
    _pack("eye", ids, [Vector("layer1", {"eye": 1}, Eye.width)], seen)
    return table


class Eye(Looker):
    """Its vector is the pixels."""

    name, width = "eye", SIDE * SIDE * 3

    def __init__(self, settings: object) -> None:
        self.vectors = (Vector("layer1", {"eye": 1}, self.width),)

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        return [batch(samples)["pixels"][:, :-1]]


def _pack(name: str, ids: list[str], vectors: Sequence[Vector], rows: np.ndarray) -> None:
    names = [vector.name for vector in vectors]
    prints = [each.fingerprint for each in vectors]
    path = Path(f"cache/mine/{name}.zarr")
    write_pack(path, name, names, prints, ids, rows.astype(np.float32))


def _fit(*settings: str) -> Path:
    call("fit", "mine", "--replace", *(f"--set={setting}" for setting in settings))
    return Path("runs/mine/random")


def test_only_what_the_run_reads_is_computed(data: ImagesTable) -> None:
    run = _fit("fit.vectors=[sharp.*]")
    scorer = agiqa.create_scorer(run)
    assert not scorer.asks_image_prompt
    scores = scorer(data.paths()[:3])
    assert scorer.semantic.extractor.wanted == {0, 1}
    assert list(scores[0].gate) == ["visual", "sharp.mean", "sharp.last"]
    again = scorer([decode(path) for path in data.paths()[:3]], ["of no use"] * 3)
    for ours, theirs in zip(scores, again, strict=True):
        assert ours.score == pytest.approx(theirs.score, abs=1e-5)


def test_answers_and_image_prompts(data: ImagesTable) -> None:
    """Scores are those of the run's own features; another generation prompt, another score."""
    run = _fit("fit.vectors=[match.last, sharp.mean]", "fit.answers=true")
    scorer = agiqa.create_scorer(run)
    assert scorer.asks_image_prompt
    files = data.paths()[:5]
    scores = scorer(files, [PROMPT] * 5)
    assert scorer.semantic.extractor.wanted == {0, 3, 4, 5}
    assert list(scores[0].gate) == ["visual", "sharp.mean", "match.last", "answers"]
    from agiqa.stage2.features import load_features

    cache = Path("cache/mine")
    _, features = load_features(
        data, cache / "looker.zarr", cache / "eye.zarr", ["match.last", "sharp.mean"], True
    )
    assert features.prompts == ("sharp.mean", "match.last", "answers")
    found = scorer.run.ensemble.predict(features.visual, features.semantic).score.mean(dim=0)
    np.testing.assert_allclose([score.score for score in scores], found[:5, 0], atol=1e-4)
    others = scorer(files, ["another"] * 5)
    assert all(a.score != b.score for a, b in zip(scores, others, strict=True))


def test_a_missing_image_prompt_is_one_line(data: ImagesTable) -> None:
    run = _fit("fit.vectors=[match.mean]")
    file = data.paths()[0]
    line = refusal("score", file, "--run", run)
    assert "asks for the text that an image was generated from: give --image-pr" in line
    call("score", file, "--run", run, "--image-prompt", " ", status=1)
    call("score", file, "--run", run, "--image-prompt", PROMPT)
    scorer = agiqa.create_scorer(run)
    with pytest.raises(AgiqaError, match="one generation prompt for each of 2 images, found 1"):
        scorer(data.paths()[:2], ["one"])
    one, two, again = scorer([file, file, file], ["one", "two", "one"])
    assert one.score == again.score != two.score


def test_vectors_that_are_gone_are_named(data: ImagesTable) -> None:
    run = _fit("fit.vectors=[sharp.mean]")
    text = (run / "params.yaml").read_text().replace("sharp.mean", "blur.mean")
    (run / "params.yaml").write_text(text)
    with pytest.raises(AgiqaError, match=r"'blur\.mean', which matches none of its vectors: sharp"):
        agiqa.create_scorer(run)
