"""The tail is the tower's own end until it is trained; what strangers say of it is checked."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.stats import pearsonr

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Visual
from agiqa.core.trees import parse_json
from agiqa.stage1.extractors import TokenExtractor, VisionExtractor
from agiqa.stage2.tuned.ensemble import TailConfig, TailStart, facts, start_tail, tail_config
from agiqa.stage2.tuned.training import combined_loss

FAMILIES = ("CLIPVisionConfig", "SiglipVisionConfig", "ViTConfig", "Dinov2Config")
SMALL = TailConfig(1, 8, 16, 2, "gelu", 1e-6, 5, 4, 2, 6, softmax=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_as_the_end_of_the_tower(
    family: str, build_vision: Callable[..., Path], tmp_path: Path
) -> None:
    model = build_vision(tmp_path / family, family)
    visual = Visual(model=str(model), tokens=1, token_size=32, image_size=32, closeup=0,
                    layers=(3,), pool=("mean",))  # fmt: skip
    tower = VisionExtractor(visual)
    extractor = TokenExtractor(visual, tower)
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(2, 3, 32, 32)).astype(np.float32)
    tower.load()
    for parameter in tower.tower.parameters():  # layer scales of 1 would prove nothing
        parameter.data += 0.1 * torch.randn_like(parameter)
    (tokens,) = tower.states(pixels, [1])
    wanted = tower.tower(pixel_values=torch.from_numpy(pixels)).last_hidden_state
    if family == "CLIPVisionConfig":  # which norms the class token alone
        wanted = tower.tower.post_layernorm(wanted)
    extractor.write_tail(tmp_path / "tail.safetensors")
    start = _read(tmp_path / "tail.safetensors")
    config = tail_config(start, tokens.shape[1], 16, (2, 6), softmax=True)
    tail = start_tail(config, start, seed=0).eval()
    with torch.inference_mode():
        states = tokens.clone()
        for block in tail.blocks:
            states = block(states)
        ours = tail.norm(states)
    torch.testing.assert_close(ours, wanted, atol=2e-5, rtol=1e-4)


def _read(path: Path) -> TailStart:
    with safe_open(path, framework="pt") as file:
        about = parse_json(file.metadata()["tail"])
    return TailStart(load_file(path), about["heads"], about["activation"], about["eps"])


def test_the_mixture_starts_at_nothing_beside_the_line() -> None:
    tail = start_tail(SMALL, _start(SMALL), seed=0).eval()
    pooled = torch.randn(3, 24)
    with torch.no_grad():
        one, other = (tail.head(pooled, torch.randn(3, 2, 6)) for _ in range(2))
        torch.testing.assert_close(one, tail.head.line(pooled)[:, 0])
        assert torch.equal(one, other)
        tail.head.mixed.weight.fill_(1.0)
        assert not torch.equal(tail.head(pooled, torch.randn(3, 2, 6)), one)


def _start(config: TailConfig) -> TailStart:
    c, h = config.width, config.hidden
    shapes = {f"0.self_attn.{p}_proj": (c, c) for p in ("q", "k", "v", "out")}
    shapes |= {"0.mlp.fc1": (h, c), "0.mlp.fc2": (c, h)}
    shapes |= dict.fromkeys(("0.layer_norm1", "0.layer_norm2", "norm"), (c,))
    tensors = {f"{n}.weight": torch.randn(s) for n, s in shapes.items()}
    tensors |= {f"{n}.bias": torch.randn(s[0]) for n, s in shapes.items()}
    return TailStart(tensors, config.heads, config.bend, config.eps)


def test_other_blocks_are_one_line() -> None:
    start = _start(SMALL)
    strange = replace(start, tensors=start.tensors | {"0.router.weight": torch.ones(1)})
    with pytest.raises(AgiqaError, match=r"tuned expects blocks as CLIP.*router"):
        start_tail(SMALL, strange, seed=0)
    with pytest.raises(AgiqaError, match=r"the activation swish"):
        tail_config(replace(start, activation="swish"), 5, 4, (2, 6), softmax=True)
    with pytest.raises(AgiqaError, match=r"the tail's heads is 0"):
        tail_config(replace(start, heads=0), 5, 4, (2, 6), softmax=True)


@pytest.mark.parametrize(
    "change",
    [{"blocks": 0}, {"width": 1 << 40}, {"heads": 3}, {"bend": "os.system"}, {"eps": "1"},
     {"softmax": 1}, {"more": 1}],
)  # fmt: skip
def test_a_strangers_sizes_are_checked(change: dict[str, object]) -> None:
    assert facts(asdict(SMALL)) == SMALL
    with pytest.raises(ValueError, match="tail"):
        facts(asdict(SMALL) | change)


def test_the_loss_knows_error_correlation_and_order() -> None:
    rng = np.random.default_rng(0)
    mos, score = (torch.from_numpy(rng.normal(size=20)).float() for _ in range(2))
    wrong = [
        max(0.0, -float((score[i] - score[j]) * torch.sign(mos[i] - mos[j])))
        for i in range(20)
        for j in range(20)
    ]
    plcc = pearsonr(score.numpy(), mos.numpy()).statistic
    error = float((score - mos).square().mean())
    expected = error + (1 - plcc) / 2 + 0.3 * float(np.mean(wrong))
    assert float(combined_loss(score, mos)) == pytest.approx(expected, rel=1e-4)
    assert float(combined_loss(mos, mos)) == pytest.approx(0, abs=1e-5)
    alone = combined_loss(torch.ones(1, requires_grad=True), torch.zeros(1))
    assert torch.isfinite(alone)
