"""Linear layers in 8-bit integers: near float32, blind to their neighbours, refused elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage1.estimate import estimate
from agiqa.stage1.extractors import ImageTextExtractor, VisionExtractor
from agiqa.stage1.extractors.image_text import shared_tower
from agiqa.stage1.extractors.int8 import Int8Linear, require_int8, use_int8
from agiqa.stage1.extractors.lmm.forward import LEVELS
from agiqa.stage1.extractors.vision import TokenExtractor

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain loop of other CPUs gives the same sums."""
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")


def images(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)) for _ in range(count)
    ]


def cosines(ours: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Cosines `(B,)` of rows `(B, D)`."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(exact, axis=1)
    return np.asarray((ours * exact).sum(1) / lengths)


@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_rounded_weights_and_tokens(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(24, 10, bias=bias).requires_grad_(False)
    tokens = torch.randn(2, 5, 24) * torch.tensor([1e-3, 1.0, 1e3, 1e6, 0.0])[:, None]

    def rounded(rows: torch.Tensor) -> torch.Tensor:
        scale = rows.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
        return (rows / scale).round().double() * scale

    with torch.inference_mode():
        ours = Int8Linear(linear)(tokens)
        expected = rounded(tokens) @ rounded(linear.weight).T
        expected = expected + linear.bias if bias else expected
    assert ours.dtype == torch.float32
    limit = 2e-6 * float(linear.weight.abs().sum(1).max())
    errors = (ours - expected).abs().amax(-1) / tokens.abs().amax(-1).clamp_min(1)
    assert float(errors.max()) < limit


def test_a_token_that_is_not_finite_spoils_itself_alone() -> None:
    tokens = torch.ones(3, 8)
    tokens[1, 2] = torch.inf
    with torch.inference_mode():
        finite = Int8Linear(nn.Linear(8, 4))(tokens).isfinite()
    assert finite.all(dim=1).tolist() == [True, False, True]


def test_a_dry_run_counts_their_operations(visual: Visual, table: ImagesTable) -> None:
    costs = [
        estimate(table, VisionExtractor(replace(visual, dtype=dtype)), workers=0).cost  # type: ignore[arg-type]
        for dtype in ("float32", "int8")
    ]
    assert all(costs)
    assert len({cost.flop for cost in costs if cost}) == 1


@pytest.mark.parametrize("kind", ["semantic", "visual"])
def test_vectors_are_near_and_do_not_depend_on_their_neighbours(
    kind: str, semantic: Semantic, visual: Visual
) -> None:
    """An image of large values beside would move the one scale of a whole batch."""
    made = ImageTextExtractor if kind == "semantic" else VisionExtractor
    settings = semantic if kind == "semantic" else visual
    exact, ours = made(settings), made(replace(settings, dtype="int8"))  # type: ignore[arg-type]
    wanted = range(len(exact.vectors))
    samples = [exact.preprocess(image) for image in images(4)]
    rows = ours.extract(samples, wanted)
    for row, float32 in zip(rows, exact.extract(samples, wanted), strict=True):
        assert not np.array_equal(row, float32)
        assert cosines(row, float32).min() > 0.99
    loud = [replace(s, arrays={n: a * 9 for n, a in s.arrays.items()}) for s in samples[2:]]
    for row, beside in zip(rows, ours.extract([*samples[:2], *loud], wanted), strict=True):
        np.testing.assert_array_equal(row[:2], beside[:2])
        assert not np.array_equal(row[2:], beside[2:])


def test_roundings_are_no_reason_to_share_less(
    monkeypatch: pytest.MonkeyPatch, semantic: Semantic
) -> None:
    """They carry last bits on: nano's vectors of a shared pass lie .007 of their length off."""
    monkeypatch.setattr("agiqa.stage1.extractors.lmm.forward._distance", lambda *_: 0.007)
    for dtype, level in (("int8", LEVELS[0]), ("float32", LEVELS[-1])):
        extractor = ImageTextExtractor(replace(semantic, dtype=dtype))  # type: ignore[arg-type]
        extractor.extract([extractor.preprocess(images(1)[0])], [0])
        assert extractor._model
        assert extractor._model.forward.shares == level


def test_a_shelf_of_their_own_and_one_pass_for_both(semantic: Semantic, visual: Visual) -> None:
    lmm, tower = (
        ImageTextExtractor(replace(semantic, dtype="int8")),
        VisionExtractor(replace(visual, dtype="int8", image_size=32, closeup=0)),
    )
    plain = VisionExtractor(replace(visual, image_size=32, closeup=0))
    assert tower.vectors[0].fingerprint == plain.vectors[0].fingerprint | {"dtype": "int8"}
    assert shared_tower(lmm, plain) is None
    both = shared_tower(lmm, tower)
    assert both
    samples = [both.preprocess(image) for image in images(4)]
    seen = [tower.preprocess(image) for image in images(4)]
    count = len(lmm.vectors)
    rows = both.extract(samples, range(len(both.vectors)))[count:]
    for row, alone in zip(rows, tower.extract(seen, range(len(tower.vectors))), strict=True):
        np.testing.assert_array_equal(row, alone)


def test_the_head_stays_whole(build_lmm: Callable[..., Path], tmp_path: Path) -> None:
    """And so do layers whose weights others read, such as torch's own attention's."""
    extractor = VisionExtractor(
        Visual(model=str(build_lmm(tmp_path / "model")), layers=(1,), image_size=32, closeup=0)
    )
    extractor.load()

    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.head = extractor.tower, nn.Linear(4, 4)
            self.pool = nn.MultiheadAttention(4, 1)

        def get_output_embeddings(self) -> nn.Module:
            return self.head

    model = Headed()
    use_int8("headed", model)
    assert type(model.head) is nn.Linear
    assert isinstance(model.pool.out_proj, nn.Linear)
    assert sum(isinstance(module, Int8Linear) for module in model.modules()) == 3 * 6


def test_where_it_cannot_run(
    monkeypatch: pytest.MonkeyPatch, semantic: Semantic, visual: Visual
) -> None:
    def refused(match: str, device: torch.device = CPU, placed: bool = False) -> None:
        with pytest.raises(AgiqaError, match=match) as error:
            require_int8("clip", device, placed)
        assert "\n" not in str(error.value)

    refused("'clip': dtype int8 is for CPUs, .* on cuda: take bfloat16", torch.device("cuda", 1))
    refused("goes without quantization and device_map", placed=True)
    bare = nn.Sequential(nn.Conv2d(1, 1, 1))
    bare.get_output_embeddings = lambda: None  # type: ignore[operator, assignment]
    with pytest.raises(AgiqaError, match=r"'bare' has no Linear layers .* take float32"):
        use_int8("bare", bare)
    with pytest.raises(AgiqaError, match=r"visual\.tokens expects weights that can be trained"):
        TokenExtractor(replace(visual, tokens=1, token_size=32, dtype="int8"))
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    refused("expects a CPU with AVX512, found AVX2: take float32")
    extractor = ImageTextExtractor(replace(semantic, dtype="int8"))
    with pytest.raises(AgiqaError, match="found AVX2"):
        extractor.extract([extractor.preprocess(images(1)[0])], [0])
