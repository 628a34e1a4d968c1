"""The paper's network trains as the recipe says; a fit that was stopped ends with the same bits."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Network, Params, load
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.inputs import PaperInputs, Pixels
from agiqa.stage2.paper.network import PaperRegressor
from agiqa.stage2.training import epochs
from agiqa.stage2.training.epochs import Steps, Training, in_bf16
from agiqa.stage2.training.resume import Fitted

Fit = Callable[..., Fitted]
Sides = dict[int, dict[str, np.ndarray]]


def _same(one: PaperEnsemble, other: PaperEnsemble) -> bool:
    pairs = zip(one.weights, other.weights, strict=True)
    return all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)


@pytest.mark.parametrize("preset", ["paper", "paper-fixed"])
def test_it_learns_what_is_there_to_learn(
    preset: str, fit_tiny: Fit, inputs: PaperInputs, mos: np.ndarray, order: np.ndarray
) -> None:
    train, val, test = order[:29], order[29:36], order[36:]
    ensemble, curves, _ = fit_tiny(preset, epochs=8, sides={20: {"train": train, "val": val}})
    score = ensemble.predict_split(0, inputs.pixels, inputs.semantic, test).score.numpy()
    assert np.corrcoef(score, mos[test])[0, 1] > 0.85
    assert curves[-1]["train_loss"] < curves[0]["train_loss"] / 4
    assert [row["epoch"] for row in curves] == list(range(1, 9))


@pytest.mark.parametrize("preset", ["paper", "paper-fixed"])
def test_a_stopped_fit_goes_on_to_the_bit(
    preset: str, fit_tiny: Fit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped after the first epoch, and again after the second."""
    caplog.set_level("INFO", logger="agiqa")
    whole = fit_tiny(preset, "one", epochs=3)
    epoch = Training._epoch
    for stop in (1, 2):

        def interrupted(self: Training, number: int, stop: int = stop) -> dict[str, Any]:
            if number > stop:
                raise KeyboardInterrupt
            return epoch(self, number)

        monkeypatch.setattr(Training, "_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_tiny(preset, "other", epochs=3)
    monkeypatch.setattr(Training, "_epoch", epoch)
    resumed = fit_tiny(preset, "other", epochs=3)
    for stop in (1, 2):
        assert caplog.text.count(f"Split 20 goes on after epoch {stop}.") == 1
        assert caplog.text.count(f"epoch {stop} of 3") == 2  # of the whole one, and of this
    assert resumed.curves == whole.curves
    assert _same(resumed.ensemble, whole.ensemble)


def test_a_finished_split_is_not_trained_again(
    fitted: Fitted, fit_tiny: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten splits take hours; a stop in the last must not cost the first."""
    shutil.copytree(fitted.states[0].folder.parent, tmp_path / "ledger")
    monkeypatch.setattr(Training, "_epoch", lambda *_: pytest.fail("trained again"))
    again = fit_tiny()
    assert _same(again.ensemble, fitted.ensemble)
    assert again.curves == fitted.curves
    for state in again.states:
        state.remove()
    with pytest.raises(pytest.fail.Exception):
        fit_tiny()


@pytest.mark.parametrize(
    "changed",
    [{"lr": 0.002}, {"flip": "none"}, {"network": 0.5}, {"preset": "paper-fixed"}, {"mos": True}],
)
def test_other_settings_or_data_are_another_fit(
    changed: dict[str, Any], fitted: Fitted, fit_tiny: Fit, tiny: Network, mos: np.ndarray
) -> None:
    if "network" in changed:
        changed = {"network": replace(tiny, dropout=changed["network"])}
    if changed == {"mos": True}:
        changed = {"mos": mos + 0.1}
    second = fit_tiny(**changed)
    assert fitted.states[0].folder.name != second.states[0].folder.name
    assert not _same(fitted.ensemble, second.ensemble)


def test_how_it_fits_into_memory_does_not_make_another_fit(fitted: Fitted, fit_tiny: Fit) -> None:
    ledger = fitted.states[0].folder.parent
    again = fit_tiny(ledger=ledger, micro_batch=1, workers=2)
    assert again.states[0].folder == fitted.states[0].folder


def test_the_best_epoch_is_kept(
    fit_tiny: Fit, inputs: PaperInputs, mos: np.ndarray, sides: Sides
) -> None:
    for preset in ("paper", "paper-fixed"):
        ensemble, curves, _ = fit_tiny(preset, epochs=4)
        val = sides[20]["val"]
        val = val[:4] if preset == "paper" else val  # the authors' loader drops what is left
        score = ensemble.predict_split(0, inputs.pixels, inputs.semantic, val).score.numpy()
        found = spearmanr(score, mos[val]).statistic + np.corrcoef(score, mos[val])[0, 1]
        best = max(row["val_srcc"] + row["val_plcc"] for row in curves)
        assert found == pytest.approx(best, abs=1e-4)


def test_the_test_side_is_not_touched(
    fitted: Fitted, fit_tiny: Fit, inputs: PaperInputs, mos: np.ndarray, sides: Sides
) -> None:
    test = sides[20]["test"]
    hidden, file, semantic = mos.copy(), inputs.pixels.file.copy(), inputs.semantic.copy()
    hidden[test], file[test], semantic[test] = np.nan, 0, np.nan
    blind = replace(inputs, pixels=Pixels(file, inputs.pixels.rows), semantic=semantic)
    alone = fit_tiny(inputs=blind, mos=hidden)
    assert _same(alone.ensemble, fitted.ensemble)
    assert alone.states[0].folder.name == fitted.states[0].folder.name


def _rows_shown(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    shown: list[np.ndarray] = []
    step = Steps.step

    def watched(self: Steps, rate: float, rows: np.ndarray, draws: Any) -> torch.Tensor:
        shown.append(rows)
        return step(self, rate, rows, draws)

    monkeypatch.setattr(Steps, "step", watched)
    return shown


def test_dropping_the_last_batch_is_a_switch(
    fit_tiny: Fit, sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """13 images in batches of 4: three whole ones, and one left over."""
    shown = _rows_shown(monkeypatch)
    fit_tiny(epochs=1)
    assert [len(rows) for rows in shown] == [4] * 3
    shown.clear()
    fit_tiny(epochs=1, drop_last_train=False)
    assert [len(rows) for rows in shown] == [4] * 3 + [1]
    assert sorted(np.concatenate(shown)) == sorted(sides[20]["train"])
    shown.clear()
    fit_tiny("paper-fixed", epochs=1)
    assert len(shown) == 4


def test_every_epoch_has_an_order_of_its_own(
    fit_tiny: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = _rows_shown(monkeypatch)
    fit_tiny(epochs=2)
    assert not np.array_equal(np.concatenate(shown[:3]), np.concatenate(shown[3:]))


class _SmallGpu:
    """Makes the network run out of memory above so many images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.seen = room, [0]
        forward = PaperRegressor.forward

        def limited(network: PaperRegressor, image: torch.Tensor, semantic: torch.Tensor) -> Any:
            if len(image) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            self.seen.append(len(image))
            return forward(network, image, semantic)

        monkeypatch.setattr(PaperRegressor, "forward", limited)


def test_too_little_memory_halves_what_is_at_hand_not_the_batch(
    fit_tiny: Fit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown = _rows_shown(monkeypatch)
    gpu = _SmallGpu(monkeypatch, room=3)
    fitted = fit_tiny(batch_size=8)
    assert (
        "Memory ran out with 8 images at a time (training, still 8 a step): 4 now." in caplog.text
    )
    assert (
        "Memory ran out with 4 images at a time (training, still 8 a step): 2 now." in caplog.text
    )
    assert max(gpu.seen) <= 3
    assert {len(rows) for rows in shown} == {8}
    assert len(fitted.curves) == 2


def test_a_repeated_step_has_the_gradients_of_a_whole_one(
    fit_tiny: Fit, tiny: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, whose draws depend on how many images are together."""
    still = replace(tiny, dropout=0.0, drop_path=0.0)
    whole = fit_tiny(ledger="whole", batch_size=8, network=still)
    _SmallGpu(monkeypatch, room=3)
    halved = fit_tiny(ledger="halved", batch_size=8, network=still)
    for ours, theirs in zip(halved.curves, whole.curves, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)
    for name, tensor in halved.ensemble.weights[0].items():
        torch.testing.assert_close(tensor, whole.ensemble.weights[0][name], atol=2e-3, rtol=1e-2)


def test_room_for_not_even_one_image_is_one_line(
    fit_tiny: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    _SmallGpu(monkeypatch, room=0)
    with pytest.raises(
        AgiqaError, match=r"with 1 image at a time.*gradient_checkpointing"
    ) as caught:
        fit_tiny()
    assert "\n" not in str(caught.value)


def test_scoring_halves_too(
    fitted: Fitted, inputs: PaperInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = fitted.ensemble
    before = ensemble.predict(inputs.pixels, inputs.semantic)
    _SmallGpu(monkeypatch, room=5)
    after = ensemble.predict(inputs.pixels, inputs.semantic)
    torch.testing.assert_close(after.score, before.score, atol=1e-5, rtol=1e-5)


def test_another_error_is_not_taken_for_too_little_memory(
    fit_tiny: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(PaperRegressor, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        fit_tiny()


def test_an_image_scores_the_same_alone(fitted: Fitted, inputs: PaperInputs) -> None:
    ensemble = fitted.ensemble
    together = ensemble.predict(inputs.pixels, inputs.semantic)
    size = together.quality_map.shape[-1]
    assert together.score.shape == (1, 44, 1)
    assert together.gate.shape == (1, 44, 3, 1)
    assert together.quality_map.shape == (1, 44, size, size)
    for row in (0, 21, 43):
        one = np.array([row])
        alone = ensemble.predict_split(0, inputs.pixels, inputs.semantic, one)
        torch.testing.assert_close(alone.score[0], together.score[0, row, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
def test_bfloat16_and_checkpointing_train_too(fit_tiny: Fit) -> None:
    plain = fit_tiny(lr=1e-4)
    half = fit_tiny(lr=1e-4, precision="bfloat16")
    assert half.curves[-1]["train_loss"] == pytest.approx(plain.curves[-1]["train_loss"], rel=0.1)
    assert half.curves != plain.curves
    less = fit_tiny(lr=1e-4, ledger="less", gradient_checkpointing=True)
    assert less.curves[-1]["train_loss"] == pytest.approx(plain.curves[-1]["train_loss"], rel=0.1)


@pytest.mark.parametrize("preset", ["paper", "paper-fixed"])
def test_both_presets_train_in_float32_unless_told_otherwise(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a GPU that has bfloat16, and where the settings say nothing."""
    monkeypatch.setattr(epochs, "is_bf16_available", lambda **_: True)
    gpu = SimpleNamespace(device=torch.device("cuda"))
    stated = load(Path(__file__).parents[3] / "params.yaml", [f"fit.preset={preset}"])
    for params in (stated, Params()):
        assert not in_bf16(params.paper.precision, gpu)
    assert in_bf16("auto", gpu)
    assert in_bf16("bfloat16", gpu)


def test_neither_training_nor_scoring_uses_tf32(
    fit_tiny: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = PaperRegressor.forward

    def watched(network: PaperRegressor, *given: torch.Tensor) -> object:
        seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return forward(network, *given)

    monkeypatch.setattr(PaperRegressor, "forward", watched)
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    try:
        fit_tiny(epochs=1)
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])
    assert set(seen) == {(False, "highest")}


def test_what_cannot_be_trained_is_one_line(fit_tiny: Fit, mos: np.ndarray, sides: Sides) -> None:
    few = {7: {"train": np.arange(3), "val": np.arange(3, 9)}}
    with pytest.raises(AgiqaError, match="Split 7 has 3 train images; fit needs at least 4"):
        fit_tiny(sides=few)
    with pytest.raises(AgiqaError, match="Split 7 has 1 val images; fit needs at least 2"):
        fit_tiny(sides={7: {"train": np.arange(8), "val": np.arange(8, 9)}})
    with pytest.raises(AgiqaError, match="training images of split 20 have the same score"):
        fit_tiny(mos=np.ones_like(mos))
    with pytest.raises(AgiqaError, match=r"loss of epoch \d is not finite: lower paper\.lr"):
        fit_tiny(lr=1e30)


def test_a_validation_side_that_says_nothing_keeps_the_first_epoch(
    fit_tiny: Fit, mos: np.ndarray, sides: Sides
) -> None:
    flat = mos.copy()
    flat[sides[20]["val"]] = 3.0
    curves = fit_tiny(mos=flat).curves
    assert all(math.isnan(row["val_srcc"]) for row in curves)


def test_a_damaged_state_starts_over(
    fitted: Fitted, fit_tiny: Fit, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    shutil.copytree(fitted.states[0].folder.parent, tmp_path / "ledger")
    (path,) = (tmp_path / "ledger").glob("fit-*/state.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    again = fit_tiny()
    assert "this fit starts over" in caplog.text
    assert _same(fitted.ensemble, again.ensemble)
    for best in path.parent.glob("best-*"):
        best.unlink()
    assert _same(fit_tiny().ensemble, fitted.ensemble)
