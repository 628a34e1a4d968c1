"""float32 is float32: no TF32 while it lasts, and afterwards whatever was set before."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from agiqa.core.float32 import full_float32
from agiqa.core.params import Semantic, Visual
from agiqa.stage1.extractors import ImageTextExtractor, VisionExtractor, semantic_extractor


@pytest.fixture
def allowed() -> object:
    """TF32 is allowed everywhere."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


def _now() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_it_is_switched_off_and_on_again(allowed: None) -> None:
    assert _now() == (True, True)
    with full_float32():
        assert _now() == (False, False)
        with full_float32():
            assert _now() == (False, False)
        assert _now() == (False, False)
    assert _now() == (True, True)
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert _now() == (True, True)


def test_pytorchs_newer_switches_are_heeded_too(python: list[str]) -> None:
    """In a process of its own: with them set, the older ones cannot be read."""
    code = """
import torch, warnings
warnings.simplefilter("error")
from agiqa.core.float32 import full_float32
conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
conv.fp32_precision, matmul.fp32_precision = "ieee", "tf32"
conv.fp32_precision = "tf32"
torch.backends.cudnn.rnn.fp32_precision = "ieee"
with full_float32():
    assert (conv.fp32_precision, matmul.fp32_precision) == ("ieee", "ieee")
assert (conv.fp32_precision, matmul.fp32_precision) == ("tf32", "tf32")
"""
    subprocess.run([*python, "-c", code], check=True, timeout=600)


def test_every_extractor_runs_without_it(
    allowed: None, family_folder: Callable, tiny_lmm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = nn.Conv2d.forward

    def watched(module: nn.Conv2d, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(_now())
        return forward(module, pixels)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    for extractor in (
        ImageTextExtractor(Semantic(model=str(tiny_lmm), batch_size=1)),
        semantic_extractor(Semantic(model=str(family_folder("clip")), batch_size=1)),
        VisionExtractor(Visual(model=str(tiny_lmm), layers=(1,), image_size=32, closeup=0)),
    ):
        count = len(seen)
        extractor.extract([extractor.preprocess(Image.new("RGB", (40, 40)))], [0])
        assert len(seen) > count
    assert set(seen) == {(False, False)}
