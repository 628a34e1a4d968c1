"""mPLUG-Owl2 behind the extractor's contract: chosen by its configuration, extracted, explained."""

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models
from transformers import CLIPImageProcessorPil

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode
from agiqa.runs.lmm_scorer import LmmScorer, read_scorer
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import ImageTextExtractor, semantic_extractor
from agiqa.stage1.extractors.contract import batch
from agiqa.stage1.mplug_owl2.processing import load_tokenizer, normalise, tokenize
from agiqa.stage1.vectors import vectors_of_images
from agiqa.store import read_pack
from kit.command import agiqa
from kit.lazy import Lazily

loading = Lazily("agiqa.stage1.mplug_owl2.loading")
modeling = Lazily("agiqa.stage1.mplug_owl2.network")
owl = Lazily("agiqa.stage1.mplug_owl2.extractor")


@pytest.fixture
def settings(tiny: Path) -> Semantic:
    return Semantic(name="owl", model=str(tiny), batch_size=4)


@pytest.fixture
def table(write_images: Callable[..., Path]) -> ImagesTable:
    return folder.prepare(write_images(*[f"{row}.png" for row in range(6)]), "six")


def test_the_models_configuration_chooses_the_extractor(
    settings: Semantic, tiny_lmm: Path, tmp_path: Path
) -> None:
    assert isinstance(semantic_extractor(settings), owl.MplugOwl2Extractor)
    ordinary = dataclasses.replace(settings, model=str(tiny_lmm))
    assert isinstance(semantic_extractor(ordinary), ImageTextExtractor)
    (tmp_path / "config.json").write_text("no JSON")
    with pytest.raises(AgiqaError, match=r"config\.json: not a model's configuration"):
        semantic_extractor(dataclasses.replace(settings, model=str(tmp_path)))


def test_the_prompts_are_put_as_the_reference_puts_them(
    settings: Semantic, vocabulary: dict[str, int]
) -> None:
    extractor = owl.MplugOwl2Extractor(settings)
    assert [vector.name for vector in extractor.vectors] == ["semantic_content", "coherence"]
    pieces = {number: piece for piece, number in vocabulary.items()}
    for name, text in zip(extractor.prompt_set.prompts, extractor.texts, strict=True):
        before = "".join(pieces[number] for number in text.before)
        question = extractor.prompt_set.prompts[name]
        assert before == f"<s>▁USER:▁{question.replace(' ', '▁')}<0x0A>"
        assert "".join(pieces[number] for number in text.after) == "▁▁ASSISTANT:"


def test_vectors_in_the_store_are_the_plain_forwards(
    settings: Semantic, tiny: Path, table: ImagesTable, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, precision="float32")
    extractor = semantic_extractor(settings)
    result = extract(table, extractor, tmp_path / "owl.zarr", ledger=tmp_path / "ledger")
    assert (result.computed, result.width) == (12, 64)
    again = extract(table, semantic_extractor(settings), result.store, ledger=tmp_path / "ledger")
    assert (again.cached, again.computed) == (12, 0)
    rows = read_pack(result.store).rows(list(table.frame["image_id"]))

    model = loading.load_model(tiny, "float32", "eager")
    samples = [extractor.preprocess(decode(path)) for path in table.paths()]
    pixels = torch.from_numpy(batch(samples)["pixel_values"])
    for index, text in enumerate(owl.MplugOwl2Extractor(settings).texts):
        ids = torch.tensor([[*text.before, modeling.IMAGE_TOKEN, *text.after]]).expand(6, -1)
        with torch.inference_mode():
            states = model(ids, normalise(pixels)).last_hidden_state
        np.testing.assert_allclose(rows[:, index], states.mean(dim=1).numpy(), atol=1e-5)
    in_memory = vectors_of_images([decode(path) for path in table.paths()], extractor)
    np.testing.assert_array_equal(np.stack(in_memory, axis=1), rows)


@pytest.mark.parametrize("over", ["words", "vocabulary"])
def test_answers_are_the_heads_probabilities(
    over: str,
    settings: Semantic,
    tiny: Path,
    vocabulary: dict[str, int],
    write_prompts: Callable[..., str],
) -> None:
    """Behind the text, as Q-Align asks for them; the vectors stay what they are without."""
    template = "USER: {prompt}\n{image}\nASSISTANT: It is"
    asked = {"a": "How good is it?", "b": "How sharp is it?"}
    words = {"answers": ["An", "in"], "answers_over": over}
    plain, answered = (
        owl.MplugOwl2Extractor(
            dataclasses.replace(
                settings, prompts=write_prompts(asked, name, template=template, **more)
            )
        )
        for name, more in (("plain.yaml", {}), ("answered.yaml", words))
    )
    samples = [plain.preprocess(Image.effect_noise((30, 40), 80).convert("RGB"))] * 2
    vectors, answers = answered.extract(samples, [0, 3])
    assert np.array_equal(vectors, plain.extract(samples, [0])[0])

    network = loading.load_model(tiny, "float32", "sdpa")
    text = answered.texts[1]
    ids = torch.tensor([[*text.before, modeling.IMAGE_TOKEN, *text.after]]).expand(2, -1)
    pixels = torch.from_numpy(batch(samples)["pixel_values"])
    head = torch.load(tiny / "pytorch_model.bin", weights_only=True)["lm_head.weight"]
    with torch.inference_mode():
        logits = network(ids, normalise(pixels)).last_hidden_state[:, -1] @ head.float().T
    firsts = [vocabulary["▁A"], vocabulary["▁in"]]
    chosen = logits[:, firsts].softmax(1) if over == "words" else logits.softmax(1)[:, firsts]
    np.testing.assert_allclose(answers, chosen.numpy(), atol=1e-6)


def test_fingerprints_change_with_what_changes_the_numbers(
    settings: Semantic, build: Callable[..., Path], tmp_path: Path
) -> None:
    def prints(**changed: object) -> list[object]:
        chosen = dataclasses.replace(settings, **changed)  # type: ignore[arg-type]
        return [vector.fingerprint for vector in owl.MplugOwl2Extractor(chosen).vectors]

    base = prints()
    assert base[0] != base[1]
    assert prints(batch_size=2, workers=1, name="x") == base
    assert prints(dtype="float16")[0] != base[0]
    assert prints(attention="eager")[0] != base[0]
    assert prints(precision="float32")[0] != base[0]
    text = (Path(__file__).parents[3] / "prompts" / "ma_agiqa.yaml").read_text()
    changed = tmp_path / "set.yaml"
    changed.write_text(text.replace("violations of coherence", "violations of anatomy"))
    reworded = prints(prompts=str(changed))
    assert reworded[0] == base[0]
    assert reworded[1] != base[1]
    same = build(tmp_path / "same")
    assert prints(model=str(same)) == base
    (same / "tokenizer.json").write_text((same / "tokenizer.json").read_text() + "\n")
    assert prints(model=str(same))[0] != base[0]


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_images: Callable[..., Path]
) -> Callable[[Path | str, str], None]:
    """Runs `agiqa extract` with a model and expects one line with that text, exit code 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    write_images("a.png", "b.png")
    agiqa("prepare", "mine", "--from", "images")

    def run(model: Path | str, text: str) -> None:
        options = ["--only", "semantic", "--set", f"semantic.model={model}"]
        result = agiqa("extract", "mine", *options, status=1)
        assert text in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert "Traceback" not in result.output

    return run


def test_bad_models_get_one_line(
    refused: Callable[[Path | str, str], None], tiny: Path, tiny_lmm: Path, tmp_path: Path
) -> None:
    bad = Path(shutil.copytree(tiny, tmp_path / "bad"))
    (bad / "tokenizer.json").unlink()
    refused(bad, "no tokenizer; expected tokenizer.model or tokenizer.json")
    shutil.copyfile(tiny / "tokenizer.json", bad / "tokenizer.json")
    (bad / "pytorch_model.bin").unlink()
    shutil.copyfile(tiny_lmm / "model.safetensors", bad / "model.safetensors")
    refused(bad, "the weights do not fit its config.json and MplugOwl2Model")


def test_a_hub_out_of_reach_says_where_to_put_the_folder(
    refused: Callable[[Path | str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    refused(
        "MAGAer13/mplug-owl2-llama2-7b",
        "Put the model into a local folder, such as models/mplug-owl2-llama2-7b",
    )


def test_a_question_with_the_image_marker(
    settings: Semantic, write_prompts: Callable[..., str]
) -> None:
    path = write_prompts({"odd": "Is <|image|> good?"})
    with pytest.raises(AgiqaError, match="found it 2 times"):
        owl.MplugOwl2Extractor(dataclasses.replace(settings, prompts=path))


def test_large_and_odd_images_become_the_models_square(settings: Semantic) -> None:
    extractor = owl.MplugOwl2Extractor(settings)
    for size in ((1, 1), (3000, 2), (28, 28)):
        pixels = extractor.preprocess(Image.new("RGB", size)).arrays["pixel_values"]
        assert (pixels.shape, pixels.dtype) == ((1, 3, 28, 28), np.uint8)


LEVELS = ("excellent", "good", "fair", "poor", "bad")
TEXT = (
    "USER: How would you rate the quality of this image?\n<|image|>\n"
    "ASSISTANT: The quality of the image is"
)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)


@pytest.fixture
def taught(build: Callable[..., Path], vocabulary: dict[str, int], tmp_path: Path) -> Path:
    """The tiny checkpoint, whose tokenizer knows each level as one piece, as LLaMA's does."""
    pieces, merges = dict(vocabulary), []
    for level in LEVELS:
        for whole in accumulate(f"▁{level}"):
            if whole != "▁":
                pieces.setdefault(whole, len(pieces))
                merges.append((whole[:-1], whole[-1]))
    folder = build(tmp_path / "owl")
    options = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    made = Tokenizer(models.BPE(pieces, list(dict.fromkeys(merges)), **options))
    made.save(str(folder / "tokenizer.json"))
    return folder


def expand2square(image: Image.Image) -> Image.Image:
    """As the authors pad: the rest is CLIP's mean colour, the image in the middle."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(x * 255) for x in CLIP_MEAN))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def test_the_mean_level_behind_the_authors_text(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    images = [Image.effect_noise(size, 90).convert("RGB") for size in ((30, 50), (50, 30))]
    scorer = read_scorer("q-align")
    assert (scorer.settings.model, scorer.settings.dtype) == ("q-future/one-align", "float16")
    settings = replace(scorer.settings, model=str(taught), dtype="float32")
    ours = LmmScorer(replace(scorer, settings=settings))(images)

    tokenizer = load_tokenizer(taught, 10**6)
    ids = [tokenizer.encode(level, add_special_tokens=False).ids[0] for level in LEVELS]
    assert len(set(ids)) == len(LEVELS)
    text = tokenize(tokenizer, 1, TEXT)
    row = [*text.before, modeling.IMAGE_TOKEN, *text.after]
    side = {"height": 28, "width": 28}
    pixels = CLIPImageProcessorPil(size=side, crop_size=side)(
        [expand2square(image) for image in images], return_tensors="pt"
    )["pixel_values"]
    network = loading.load_model(taught, "float32", "eager", modeling.MplugOwl2WithHead)
    with torch.inference_mode():
        states = network(torch.tensor([row, row]), pixels).last_hidden_state
        levels = network.logits(states[:, -1])[:, ids].softmax(-1)
    expected = (levels @ torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])).tolist()
    assert [score.score for score in ours] == pytest.approx(expected, abs=1e-4)
    assert expected[0] != expected[1]


SCRIPT = Path(__file__).parents[3] / "benchmarks" / "mplug_owl2.py"


def test_it_measures_both_ways_side_by_side(
    write_images: Callable[..., Path], python: list[str]
) -> None:
    images = write_images("a.png", "b.png", "c.png")
    command = [*python, str(SCRIPT), "--tiny", "--rounds", "1", "--images", str(images)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.search(r"ours: [\d.]+ images/s, [\d.]+ TFLOP an image.*% of the measured", printed)
    assert re.search(r"the reference's way takes [\d.]+ times as long", printed)
    assert "3 image files, decoding and store included" in printed
    difference = re.search(r"difference of a vector's element between the two: (\S+)", printed)
    assert difference is not None
    assert float(difference[1]) < 1e-5
