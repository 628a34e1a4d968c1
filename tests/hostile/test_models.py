"""Models of others: no code of theirs runs, and none is fetched, unless a person allows just that.

The attacker gives a run away whose params.yaml names a model folder inside it.
"""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual, load
from agiqa.runs.files import load_run
from agiqa.stage1.extractors import semantic_extractor
from agiqa.stage1.extractors.lmm.inputs import chat_text
from agiqa.stage1.extractors.loading import find_model, load_model, load_processor

NEEDS = r"wants to run Python of its own, which is refused: read odd\.py in .*; to allow exactly"


def change(file: Path, **changed: Any) -> None:
    """Set keys at the top of a JSON file."""
    tree = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(tree | changed))


@pytest.fixture
def lmm(tiny_lmm: Path, tmp_path: Path) -> Path:
    """A copy of the tiny LMM, for an attacker to change."""
    return Path(shutil.copytree(tiny_lmm, tmp_path / "run" / "lmm", dirs_exist_ok=True))


@pytest.fixture
def odd(tmp_path: Path, canary: Any) -> Path:
    """A model folder of a type that transformers does not know, with code of its own."""
    folder = tmp_path / "run" / "odd"
    folder.mkdir(parents=True)
    names = {"AutoConfig": "odd.OddConfig", "AutoModelForImageTextToText": "odd.OddModel"}
    change(folder / "config.json", model_type="odd", auto_map=names)
    (folder / "odd.py").write_text(
        "from transformers import PreTrainedConfig\n"
        f"{canary.code}\n"
        "class OddConfig(PreTrainedConfig):\n"
        "    model_type = 'odd'\n"
    )
    return folder


def name_model(run: Path, section: str = "semantic", **changed: str) -> None:
    """Change settings in a run's params.yaml."""
    tree = yaml.safe_load((run / "params.yaml").read_text())
    tree[section] |= changed
    (run / "params.yaml").write_text(yaml.safe_dump(tree))


@pytest.fixture
def evil_run(good_run: Path, odd: Path) -> Path:
    """A run that allows itself to run the code inside it."""
    name_model(good_run, model=str(odd), remote_code=str(odd))
    return good_run


@pytest.mark.parametrize("command", ["score", "explain", "serve"])
def test_a_run_cannot_allow_its_own_code(
    attack: Callable, evil_run: Path, workspace: Path, command: str
) -> None:
    image = workspace / "images/00.png"
    given = {
        "score": [image, "--run", evil_run],
        "explain": [evil_run, image],
        "serve": ["--run", evil_run, "--port", "0"],
    }[command]
    error = attack(command, *given).error
    assert "wants to run Python of its own, which is refused" in error
    assert "--remote-code" in error


def test_nor_can_a_run_that_knows_the_digest(
    attack: Callable, evil_run: Path, odd: Path, workspace: Path
) -> None:
    with pytest.raises(AgiqaError, match=NEEDS) as refused:
        semantic_extractor(Semantic(model=str(odd)))
    name_model(evil_run, remote_code=permission(refused.value))
    assert load_run(evil_run).params.semantic.remote_code == ""
    image = workspace / "images/00.png"
    assert "which is refused" in attack("score", image, "--run", evil_run).error
    # Nor where its settings are taken for the user's own.
    assert load(evil_run / "params.yaml").semantic.remote_code == ""
    assert load(evil_run / "params.yaml", ["semantic.remote_code=x"]).semantic.remote_code == "x"


def permission(error: AgiqaError) -> str:
    """What the refusal says to give."""
    return str(error).partition("give ")[2].partition(" as --remote-code")[0]


def test_a_person_allows_exactly_what_was_read(
    odd: Path, canary: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    settings = Semantic(model=str(odd))
    with pytest.raises(AgiqaError, match=NEEDS) as refused:
        semantic_extractor(settings)
    allowed = permission(refused.value)
    # Not the name alone, nor another model's permission.
    for given in (str(odd), f"other@{allowed.rpartition('@')[2]}", allowed[:-1]):
        with pytest.raises(AgiqaError, match=NEEDS):
            semantic_extractor(Semantic(model=str(odd), remote_code=given))
    assert not canary.ran
    with pytest.raises(Exception, match=r"image processor|tokenizer|preprocessor") as lacking:
        semantic_extractor(Semantic(model=str(odd), remote_code=allowed))
    assert canary.ran
    canary.path.unlink()
    monkeypatch.setenv("AGIQA_REMOTE_CODE", allowed)
    with pytest.raises(type(lacking.value), match=r"image processor|tokenizer|preprocessor"):
        semantic_extractor(settings)
    (odd / "odd.py").write_text((odd / "odd.py").read_text() + "# changed\n")
    with pytest.raises(AgiqaError, match=NEEDS):
        semantic_extractor(Semantic(model=str(odd), remote_code=allowed))
    assert not canary.ran


AWAY = {
    "code of another repository": ({"auto_map": {"AutoConfig": "them/evil--odd.OddConfig"}}, "odd"),
    "code of another folder": ({"auto_map": {"AutoConfig": "/tmp/evil.OddConfig"}}, "odd"),
    "code in a part": ({"vision_config": {"auto_map": {"AutoModel": "odd.Odd"}}}, "lmm"),
    "a hub kernel": ({"text_config": {"_attn_implementation": "them/kernel"}}, "lmm"),
    "kernels by part": ({"attn_implementation": {"text_config": "them/kernel@main:f"}}, "lmm"),
    "timm from the hub": ({"model_type": "timm_wrapper", "architecture": "hf-hub:t/e"}, "lmm"),
    "timm's pickles": (
        {"vision_config": {"model_type": "timm_wrapper", "model_args": {"checkpoint_path": "x"}}},
        "lmm",
    ),
}


@pytest.mark.parametrize("way", AWAY)
def test_a_configuration_that_leads_away_is_refused(
    way: str, attack: Callable, good_run: Path, lmm: Path, odd: Path, workspace: Path
) -> None:
    changed, which = AWAY[way]
    folder = {"lmm": lmm, "odd": odd}[which]
    change(folder / "config.json", **changed)
    for section in ("semantic", "visual"):
        if (section, which) != ("visual", "odd"):
            name_model(good_run, section, model=str(folder))
    error = attack("score", workspace / "images/00.png", "--run", good_run).error
    assert "which is refused" in error


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (
            "processor_config.json",
            {"audio_tokenizer": {"audio_tokenizer_class": "AutoModel", "x": "them/evil"}},
        ),
        ("audio_tokenizer_config.json", {}),
        ("model.safetensors.index.json", {"weight_map": {"w": "../../other.safetensors"}}),
    ],
)
def test_other_files_that_lead_away_are_refused(
    lmm: Path, file: str, content: dict[str, Any]
) -> None:
    change(lmm / file, **content)
    with pytest.raises(AgiqaError, match=r"not in its own folder, which is refused \(.*" + file):
        find_model(str(lmm))


@pytest.mark.parametrize("name", ["/tmp/them--odd.P", "../evil.P", "/tmp/evil.P", "a.b.P"])
def test_the_code_of_any_part_is_what_was_read(odd: Path, name: str) -> None:
    """The tokenizer's and the processor's configurations name code, too."""
    with pytest.raises(AgiqaError, match=NEEDS) as refused:
        semantic_extractor(Semantic(model=str(odd)))
    allowed = permission(refused.value)
    change(odd / "tokenizer_config.json", auto_map={"AutoProcessor": "odd.P"})
    with pytest.raises(AgiqaError, match=NEEDS) as again:
        semantic_extractor(Semantic(model=str(odd), remote_code=allowed))
    assert permission(again.value) != allowed
    change(odd / "tokenizer_config.json", auto_map={"AutoProcessor": name})
    with pytest.raises(AgiqaError, match="Python of another place"):
        semantic_extractor(Semantic(model=str(odd), remote_code=allowed))


def test_sizes_that_the_weights_do_not_have_take_no_memory(lmm: Path) -> None:
    config = json.loads((lmm / "config.json").read_text())
    config["text_config"]["vocab_size"] = 400_000_000
    change(lmm / "config.json", **config)
    with pytest.raises(AgiqaError, match=r"describes [\d,]{11,} numbers"):
        load_model(
            transformers.AutoModelForImageTextToText,
            find_model(str(lmm)), "float32", "sdpa", Semantic(),
        )  # fmt: skip


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        "{% set s = namespace(a='a') %}{% for _ in range(50) %}{% set s.a = s.a ~ s.a %}"
        "{% endfor %}",
    ],
)
def test_a_chat_template_takes_bounded_work(
    lmm: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agiqa.stage1.extractors.lmm.inputs.TEMPLATE_SECONDS", 1)
    processor = load_processor(find_model(str(lmm)))
    processor.chat_template = template
    with pytest.raises(AgiqaError, match=r"takes more than 1 s or 512 MiB for one turn"):
        chat_text(processor, "What is wrong?", "image_first")


def test_code_of_parts_neither_runs_nor_is_asked_about(
    lmm: Path, odd: Path, canary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is left open whether code may run, transformers would ask on standard input."""

    def ask(_: str) -> str:
        raise AssertionError("asked")

    monkeypatch.setattr("builtins.input", ask)
    shutil.copy(odd / "odd.py", lmm)
    (lmm / "custom_generate").mkdir()
    (lmm / "custom_generate/generate.py").write_text(canary.code)
    names = {
        "AutoProcessor": "odd.P",
        "AutoTokenizer": ["odd.T", None],
        "AutoImageProcessor": "odd.I",
    }
    for file in ("tokenizer_config.json", "preprocessor_config.json"):
        change(lmm / file, auto_map=names, tokenizer_class="OddTokenizer", image_processor_type="I")
    change(lmm / "generation_config.json", custom_generate="odd")
    with pytest.raises(AgiqaError, match=r"no usable (image processor|tokenizer)"):
        semantic_extractor(Semantic(model=str(lmm)))
    folder = find_model(str(lmm))
    load_model(transformers.AutoModelForImageTextToText, folder, "float32", "sdpa", Semantic())
    assert not canary.ran


@pytest.mark.parametrize(
    "changed",
    [{"attention": "them/kernel"}, {"dtype": "load"}, {"device_map": "disk"}, {"name": "../x"}],
)
@pytest.mark.parametrize("section", ["semantic", "visual"])
def test_settings_of_a_run_are_choices(
    good_run: Path, changed: dict[str, str], section: str
) -> None:
    if section == "visual" and "device_map" in changed:
        return
    name_model(good_run, section, **changed)
    (key,) = changed
    with pytest.raises(AgiqaError, match=rf"'{section}\.{key}' (is one of|expects a plain name)"):
        load_run(good_run)
    if section == "semantic":  # as a pack's fingerprint gives them to `explain`
        with pytest.raises(AgiqaError, match=r"is one of|expects a plain name"):
            semantic_extractor(Semantic(**changed))  # type: ignore[arg-type]


def test_resources_are_this_machines(good_run: Path) -> None:
    for section in ("semantic", "visual", "paper"):
        name_model(good_run, section, workers=200, batch_size=60_000)  # type: ignore[arg-type]
    params = load_run(good_run).params
    assert (params.semantic.workers, params.semantic.batch_size) == (Semantic().workers, 0)
    assert (params.visual.workers, params.visual.batch_size) == (Visual().workers, 16)
    assert params.paper.workers == 4


class Bomb:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (self.code,)


def test_pickled_weights_run_nothing(lmm: Path, canary: Any) -> None:
    (lmm / "model.safetensors").unlink()
    torch.save({"w": Bomb(canary.code)}, lmm / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(AgiqaError, match="a pickle of more than tensors"):
        load_model(
            transformers.AutoModelForImageTextToText, find_model(str(lmm)), "float32", "sdpa"
        )


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9\n"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "pytorch_model.bin"])
def test_git_lfs_pointers_are_named(lmm: Path, file: str) -> None:
    (lmm / file).write_text(POINTER)
    with pytest.raises(AgiqaError, match=rf"{file}: .*found a git-lfs pointer.*git lfs pull"):
        find_model(str(lmm))
