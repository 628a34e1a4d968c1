"""Published scorers give what their authors' code gives, on tiny models instead of real ones."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from PIL import Image

import agiqa
from agiqa.core.errors import AgiqaError
from agiqa.data.images import decode
from agiqa.data.named_yaml import bundled_folder
from agiqa.runs.lmm_scorer import LmmScorer, known_scorers, read_scorer
from agiqa.stage1.extractors.loading import find_model, load_processor
from kit import families
from kit.command import agiqa as call
from kit.command import refusal
from kit.publishing import use_hub

LEVELS = ["excellent", "good", "fair", "poor", "bad"]
PROMPTS = ["a cat on a mat", "two dogs"]


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))


@pytest.fixture
def files(write_images: Callable[..., Path]) -> list[Path]:
    return sorted(write_images("a.png", "b.png").iterdir())


def on(name: str, model: Path, **changed: Any) -> LmmScorer:
    """The scorer of that name on another model, in full precision."""
    scorer = read_scorer(name)
    settings = replace(scorer.settings, model=str(model), dtype="float32", batch_size=2, **changed)
    return LmmScorer(replace(scorer, settings=settings))


def theirs(folder: Path) -> tuple[Any, Any]:
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    return load_processor(find_model(str(folder))), model


def logits(processor: Any, model: Any, text: str, file: Path) -> torch.Tensor:
    inputs = processor(text=[text], images=[decode(file)], return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).logits[0, -1]


def turn(processor: Any, question: str) -> str:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def with_words(folder: Path, words: list[str]) -> Path:
    """Add words to a model's vocabulary, each one token as in the families' own tokenizers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(words)
    tokenizer.save_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    return folder


def test_q_realign_is_the_authors_quick_run(tmp_path: Path, files: list[Path]) -> None:
    """The code of their README, on a hybrid of linear and full attention as theirs is."""
    folder = with_words(families.qwen3_5(tmp_path / "m"), [f" {word}" for word in LEVELS])
    processor, model = theirs(folder)
    text = turn(processor, "How would you rate the quality of this image?")
    text += "The quality of the image is"
    ids = [processor.tokenizer(" " + w, add_special_tokens=False).input_ids[0] for w in LEVELS]
    weights = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    scores = on("q-realign-mini", folder)(files)
    for file, ours in zip(files, scores, strict=True):
        probs = logits(processor, model, text, file)[ids].softmax(-1)
        assert ours.score == pytest.approx(float((probs * weights).sum()), abs=1e-5)
        assert (ours.disagreement, ours.targets) == (None, {"quality": ours.score})
    assert scores[0].score != scores[1].score


def test_vqascore_is_the_authors_probability_of_yes(
    family_folder: Callable[[str], Path], files: list[Path]
) -> None:
    """`qwen2vl_model.py` of t2v_metrics: among all tokens, at the first place of the reply."""
    folder = family_folder("qwen2_5_vl")
    processor, model = theirs(folder)
    scorer = on("vqascore", folder)
    assert scorer.asks_image_prompt
    for file, prompt, ours in zip(files, PROMPTS, scorer(files, PROMPTS), strict=True):
        question = f'Does this figure show "{prompt}"? Please answer Yes or No.'
        (yes, *_) = processor.tokenizer.encode("Yes", add_special_tokens=False)
        expected = logits(processor, model, turn(processor, question), file).softmax(-1)[yes]
        assert ours.score == pytest.approx(float(expected), rel=1e-3)
    same, other = scorer([files[0], files[0]], PROMPTS)  # an image has a score for each prompt
    assert same.score != other.score
    (alone,) = scorer([decode(files[0])], PROMPTS[:1])
    assert alone.score == pytest.approx(same.score, abs=1e-6)
    with pytest.raises(AgiqaError, match=r"The scorer 'vqascore' asks for the text .* image_prom"):
        scorer(files)


def test_prompt_likelihood_is_what_the_image_adds(
    family_folder: Callable[[str], Path], files: list[Path]
) -> None:
    folder = family_folder("llava")
    scorer = on("prompt-likelihood", folder)
    blank = Image.new("RGB", decode(files[0]).size, (123, 117, 104))  # CLIP's mean
    nothing, something = scorer([blank, decode(files[0])], PROMPTS[:1] * 2)
    assert nothing.score == pytest.approx(0, abs=1e-5)
    assert abs(something.score) > 1e-4


def test_every_scorer_is_named_as_its_file_and_says_what_one_must_know() -> None:
    known = known_scorers()
    assert set(known) == {path.stem for path in bundled_folder("scorers").glob("*.yaml")}
    for name, scorer in known.items():
        assert scorer.name == name
        assert scorer.citation
        assert scorer.licence
        low, high = scorer.scale
        assert low < high
    assert known["q-align"].scale == (1, 5)
    assert known["vqascore"].scale == (0, 1)  # of the vocabulary, "Yes" may have nothing
    assert known["prompt-likelihood"].settings.model == "nano"


@pytest.fixture
def write_scorer(tmp_path: Path) -> Callable[..., str]:
    """A copy of q-align with changed keys; None removes one."""

    def write(**changed: object) -> str:
        tree = yaml.safe_load((bundled_folder("scorers") / "q-align.yaml").read_text())
        tree = {key: value for key, value in (tree | changed).items() if value is not None}
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(tree))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": {}}, "unknown key 'weights'"),
        ({"remote_code": "theirs@0123"}, "unknown key 'remote_code'"),
        ({"licence": None}, "missing licence"),
        ({"licence": ""}, "licence expects a text, found ''"),
        ({"dtype": "int4"}, "semantic.dtype"),
        ({"name": "../b"}, "semantic.name"),
        ({"answers": ["good", "bad"]}, r"map words to what they are worth \(good: 4\)"),
        (
            {"answers": {"good": "much", "bad": 1}},
            "answers.good: expected a finite number, found 'much'",
        ),
        (
            {"answers": {"good": True, "bad": 1}},
            "answers.good: expected a finite number, found True",
        ),
        ({"answers": {True: 1, "no": 0}}, "True is no text to YAML; put the word in quotes"),
        ({"answers": {"good": 1}}, "at least two words"),
        ({"template": "USER: {image}"}, r"must hold \{prompt\} exactly once"),
        ({"scale": [5, 1]}, r"a lower number first, found \[5, 1\]"),
        ({"scale": [float("nan"), 1]}, r"scale\[0\]: expected a finite number, found nan"),
        ({"commercial": "no"}, "commercial: expected true or false, found 'no'"),
        ({"scale": 5}, "scale: expected a list, found 5"),
    ],
)
def test_a_wrong_scorer_is_one_line(
    write_scorer: Callable[..., str], changed: dict[str, object], message: str
) -> None:
    path = write_scorer(**changed)
    with pytest.raises(AgiqaError, match=message) as caught:
        read_scorer(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_terms_and_what_to_do_are_said_before_a_fetch(
    write_scorer: Callable[..., str],
    files: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use_hub(monkeypatch, tmp_path / "hub")
    path = write_scorer(model="nobody/none", licence="CC BY-NC 4.0", commercial=False)
    line = refusal("score", files[0], "--scorer", path)
    assert line.endswith(f"give --scorer a copy of {path} with `model: FOLDER`")
    terms = caplog.records[0]
    assert terms.levelname == "WARNING"  # --quiet keeps it
    assert "model nobody/none (8.2 billion parameters, a GPU of 20 GB), on " in terms.message
    assert terms.message.endswith("licence: CC BY-NC 4.0 (no commercial use)")


def test_the_command_scores_ranks_and_remembers(
    write_scorer: Callable[..., str], tiny_lmm: Path, files: list[Path], monkeypatch: Any
) -> None:
    model = {"model": str(tiny_lmm), "dtype": "float32", "name": "mine"}
    template = "USER: {prompt}\n{image} ASSISTANT:\n"
    path = write_scorer(**model, template=template, answers={"good": 1, "bad": 0})

    def run(*options: str) -> Any:
        return call("score", *files, *options, status=None)

    done = run("--scorer", path, "--format", "json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert (content["scorer"], content["scale"]) == ("mine", {"low": 0, "high": 1})
    assert "run" not in content
    by_image = {score["image"]: score["score"] for score in content["scores"]}
    assert list(by_image.values()) == sorted(by_image.values(), reverse=True)
    assert content["scores"][0]["disagreement"] is None
    assert any("licence: MIT on the hub" in note for note in content["notes"])
    assert any("trained on KonIQ-10k" in note for note in content["notes"])

    import agiqa.stage1.extractors.lmm.model as loads

    monkeypatch.setattr(loads, "LMM", None)  # what is remembered needs no model
    again = run("--scorer", path, "--format", "csv", "--html", "ranking.html")
    assert again.exit_code == 0, again.output
    assert again.stdout.startswith("image,score,low,high,disagreement,trained_on,held_out,target\n")
    assert all(
        f"{image},{score:.4f},,,,,,quality" in again.stdout for image, score in by_image.items()
    )
    scorer = agiqa.create_scorer(path)
    assert [score.score for score in scorer(files)] == [by_image[str(file)] for file in files]

    refused = run("--scorer", path, "--run", ".")
    assert refused.exit_code == 2
    assert "Give --run FOLDER or --scorer NAME, not both." in refused.stderr
    unknown = run("--scorer", "hps")
    assert unknown.exit_code == 1
    assert "Unknown scorer 'hps'; known: nano-shows (0.2 billion" in unknown.stderr
    assert unknown.stderr.count("\n") == 1
