"""Fixtures that several test modules share: real images, small labelled folders, AGIQA-3K, and
tiny random models that transformers itself builds and saves."""

import contextlib
import functools
import gc
import os
import uuid

# Before torch is loaded: threads of tiny models wait for each other, and `make test` has a process
# for each core already.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import settings
from PIL import Image

from agiqa.core.params import Semantic, Visual
from agiqa.data.datasets import folder
from agiqa.data.datasets.table import ImagesTable, Target
from kit.browsing import open_browser, open_tab
from kit.families import DUAL_ENCODERS, LMMS
from kit.processes import open_python
from kit.tiny_workspace import make_workspace

explores = "AGIQA_EXPLORE" in os.environ
settings.register_profile(
    "agiqa",
    max_examples=100 if explores else 50,
    deadline=None,  # machines are busy; a slow example is no bug
    derandomize=not explores,  # a test says the same of the same code
)
settings.load_profile("agiqa")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection() -> None:
    """Look for no garbage while test modules are imported."""
    gc.disable()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what fault and hostile tests counted, test by test (here, so that `-n` finds it)."""
    lines = []
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        counts = [
            f"{name.removeprefix('count ')} {number}"
            for name, number in report.user_properties
            if name.startswith("count ")
        ]
        if report.when == "call" and counts:
            test = report.nodeid.split("::")[-1].removeprefix("test_").replace("_", " ")
            lines.append(f"{test}: {', '.join(counts)}")
    if lines:
        terminalreporter.section("faults counted")
        for line in lines:
            terminalreporter.write_line(line)


def pytest_collection_finish() -> None:
    """Look for it again, but not among what the imports made: that takes a sixth of a second."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Notes counts for the summary: `count(trials=100, torn_rows=0)`."""

    def note(**counts: object) -> None:
        for name, number in counts.items():
            record_property(f"count {name.replace('_', ' ')}", number)

    return note


@pytest.fixture(scope="session")
def agiqa3k_folder() -> Path:
    """The real AGIQA-3K as its official download unpacks; mark users `agiqa3k`."""
    datasets = os.environ.get("AGIQA_DATA", str(REPOSITORY.parent / "shared" / "datasets"))
    folder = Path(datasets) / "agiqa-3k"
    if not (folder / "data.csv").is_file():
        pytest.skip(f"no AGIQA-3K in {folder}: set AGIQA_DATA to a folder that holds agiqa-3k")
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; not one for all modules, since asyncio.run is not to be had beside it."""
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(chromium: Any) -> Callable[..., Any]:
    """Opens a page in a watched tab: `with opened(page, color_scheme="dark") as tab`."""
    return functools.partial(open_tab, chromium)


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A real photograph, 160 x 106, that scikit-learn ships."""
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image("flower.jpg")
    return Image.fromarray(pixels).resize((160, 106), Image.Resampling.LANCZOS)


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """Writes small images, all different, under the given relative paths; gives their folder."""

    def write(*names: str, folder: str = "images") -> Path:
        for number, name in enumerate(names):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return tmp_path / folder

    return write


@pytest.fixture(scope="session")
def make_table() -> Callable[..., ImagesTable]:
    """A table in memory, its images never opened: one row for each group given."""

    def make(groups: list[str], files: list[str] | None = None, name: str = "tiny") -> ImagesTable:
        count = len(groups)
        frame = pd.DataFrame(
            {
                "image_id": files or [f"{row:064x}" for row in range(count)],
                "path": [f"{row:04d}.png" for row in range(count)],
                "prompt": groups,
                "group": groups,
                "generator": ["even" if row % 2 == 0 else "odd" for row in range(count)],
                "quality": np.linspace(1.0, 5.0, count),
            }
        )
        targets = (Target("quality", 1.0, 5.0),)
        return ImagesTable(name, Path("nowhere"), frame, targets, False, "none", "a test")

    return make


TINY_TOWER = {  # 32 px in patches of 8: 16 patches and a class token
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.fixture(scope="session")
def build_vision() -> Callable[..., Path]:
    """Saves a tiny random vision model (CLIP's by default) with its image processor."""

    def build(folder: Path, config: str = "CLIPVisionConfig", seed: int = 0) -> Path:
        import torch
        import transformers

        torch.manual_seed(seed)
        sizes = TINY_TOWER
        if config == "CLIPConfig":
            text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
            sizes = {"text_config": text, "vision_config": TINY_TOWER}
        made = getattr(transformers, config)(**sizes)
        transformers.AutoModel.from_config(made).save_pretrained(folder)
        _save_processor(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def build_lmm() -> Callable[..., Path]:
    """Saves a tiny random image-text model: CLIP tower, Llama, byte-level tokenizer, processor.

    `kind` is AyaVision, as nano is (4 visual tokens), or Llava (16); with `bos` the tokenizer
    opens every text with a BOS token, as Llama's does.
    """

    def build(
        folder: Path, kind: str = "AyaVision", seed: int = 0, bos: bool = False, dtype: str = ""
    ) -> Path:
        import torch
        import transformers

        tokenizer = _byte_tokenizer(bos)
        options = {"downsample_factor": 2, "alignment_intermediate_size": 16}
        config = getattr(transformers, f"{kind}Config")(
            vision_config=transformers.CLIPVisionConfig(**TINY_TOWER),
            text_config=transformers.LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=24,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                tie_word_embeddings=True,
            ),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
            **(options if kind == "AyaVision" else {}),
        )
        torch.manual_seed(seed)
        model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
        model.to(getattr(torch, dtype or "float32")).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _save_processor(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def tiny_lmm(build_lmm: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny image-text model's folder; not to be changed."""
    folder = build_lmm(tmp_path_factory.mktemp("models") / "tiny-lmm")
    pytest_collection_finish()  # transformers' code of models was not there at the first time
    return folder


@pytest.fixture(scope="session")
def tiny_workspace(tmp_path_factory: pytest.TempPathFactory, tiny_lmm: Path) -> Path:
    """A working folder as the commands leave it (kit/tiny_workspace.py); not to be changed."""
    return make_workspace(tmp_path_factory.mktemp("workspace"), tiny_lmm)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """One process of imported modules for all of xdist's workers (`python`)."""
    if not hasattr(node.config, "python"):
        stack = contextlib.ExitStack()
        node.config.python = stack.enter_context(open_python())
        node.config.add_cleanup(stack.close)
    node.workerinput["python"] = node.config.python


@pytest.fixture(scope="session")
def python(pytestconfig: pytest.Config) -> Iterator[list[str]]:
    """As `[sys.executable]`, but of processes whose imports are done (kit/imported.py)."""
    if shared := getattr(pytestconfig, "workerinput", {}).get("python"):
        yield shared
    else:
        with open_python() as words:
            yield words


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny model (tests/kit/families.py), built once; not to be
    changed."""

    @functools.cache
    def folder(family: str) -> Path:
        return (LMMS | DUAL_ENCODERS)[family](tmp_path_factory.mktemp("families") / family)

    return folder


@pytest.fixture
def write_prompts(tmp_path: Path) -> Callable[..., str]:
    """Writes a prompt set with the given prompts and changed keys; gives its path."""

    def write(questions: dict[str, str], file: str = "set.yaml", **changed: object) -> str:
        tree = {
            "name": "tiny",
            "citation": "none",
            "order": "text_first",
            "template": "USER: {prompt}\n{image} ASSISTANT:",
            "pooling": "mean",
            "prompts": questions,
        }
        path = tmp_path / file
        path.write_text(yaml.safe_dump(tree | changed), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def refuse_size(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int]], None]:
    """From then on image-text models' processors refuse images of that size.

    As Qwen-VL's does of one that is 200 times as wide as high.
    """
    from agiqa.stage1.extractors import image_text
    from agiqa.stage1.extractors.contract import refused

    features = image_text.image_features

    def start(size: tuple[int, int]) -> None:
        def refuse(processor: Any, image: Image.Image, *given: Any) -> Any:
            if image.size == size:
                error = ValueError("absolute aspect ratio must be smaller than 8")
                raise refused(processor, image, error)
            return features(processor, image, *given)

        monkeypatch.setattr(image_text, "image_features", refuse)

    return start


def _byte_tokenizer(bos: bool) -> Any:
    """One token a byte, no merges."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )
    if bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    return tokenizer


def _save_processor(folder: Path) -> None:
    import transformers

    transformers.CLIPImageProcessorPil(
        size={"height": 32, "width": 32}, do_center_crop=False
    ).save_pretrained(folder)


@pytest.fixture(autouse=True)
def _no_model_is_known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test finds out of a model is its own (extractors/identity.py)."""
    file = tmp_path_factory.getbasetemp() / f"known-{uuid.uuid4().hex}.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agiqa.stage1.extractors.identity.memory_file", lambda: file)
        yield


@pytest.fixture
def semantic(tiny_lmm: Path) -> Semantic:
    return Semantic(name="tiny", model=str(tiny_lmm), batch_size=4)


@pytest.fixture
def visual(tiny_lmm: Path) -> Visual:
    return Visual(
        name="tiny-vision",
        model=str(tiny_lmm),
        layers=(1, 3),
        image_size=48,
        closeup=64,
        batch_size=4,
    )


@pytest.fixture
def table(write_images: Callable[..., Path]) -> ImagesTable:
    """Ten real little images."""
    return folder.prepare(write_images(*[f"{row}.png" for row in range(10)]), "ten")
