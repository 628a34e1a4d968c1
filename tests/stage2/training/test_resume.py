"""What is on the disk after a stop is the last whole state, or the one before."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from agiqa.core.errors import AgiqaError
from agiqa.stage2.training.resume import FitState

RECORD = {"epoch": 2, "best_epoch": 2, "best": 1.7000000000000002}


def _tensors(value: float) -> dict[str, torch.Tensor]:
    return {"network/a": torch.full((3, 2), value), "optimiser/a.step": torch.tensor(value)}


@pytest.fixture
def state(tmp_path: Path) -> FitState:
    return FitState({"lr": 0.1}, tmp_path)


def test_what_was_saved_comes_back(state: FitState, tmp_path: Path) -> None:
    assert state.load() is None
    with state.writer():
        state.save(_tensors(1.0), RECORD | {"curves": [{"val_srcc": float("nan")}]}, _tensors(9.0))
    again = FitState({"lr": 0.1}, tmp_path)
    found = again.load()
    assert found is not None
    assert found.record["best"] == RECORD["best"]
    assert found.record["curves"][0]["val_srcc"] != found.record["curves"][0]["val_srcc"]
    assert found.tensors.keys() == _tensors(0).keys()
    assert all(torch.equal(found.tensors[name], t) for name, t in _tensors(1.0).items())
    assert torch.equal(again.best(RECORD)["network/a"], _tensors(9.0)["network/a"])
    identity = json.loads((state.folder / "identity.json").read_text())
    assert identity["lr"] == 0.1
    assert FitState({"lr": 0.2}, tmp_path).load() is None


def test_a_copy_is_saved_while_the_training_goes_on(state: FitState) -> None:
    weights = _tensors(1.0)
    with state.writer():
        state.save(weights, RECORD, weights)
        for tensor in weights.values():
            tensor.fill_(5.0)
    found = state.load()
    assert found is not None
    assert found.tensors["network/a"].max() == 1
    assert state.best(RECORD)["network/a"].max() == 1


def test_only_the_best_of_the_last_state_stays(state: FitState) -> None:
    with state.writer():
        state.save(_tensors(1.0), RECORD, _tensors(1.0))
        state.save(_tensors(2.0), RECORD | {"epoch": 3, "best_epoch": 3}, _tensors(2.0))
        state.save(_tensors(3.0), RECORD | {"epoch": 4, "best_epoch": 3}, None)
    assert sorted(path.name for path in state.folder.glob("*.safetensors")) == [
        "best-3.safetensors",
        "state.safetensors",
    ]
    assert state.best({"best_epoch": 3})["network/a"].max() == 2


@pytest.mark.parametrize("files", [1, 2])
def test_a_full_disk_keeps_the_state_before(
    files: int, state: FitState, monkeypatch: pytest.MonkeyPatch
) -> None:
    with state.writer():
        state.save(_tensors(1.0), RECORD, _tensors(1.0))
    fsync, synced = os.fsync, []

    def full(descriptor: int) -> None:
        if "safetensors" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            synced.append(descriptor)
            if len(synced) == files:
                raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(AgiqaError, match="No space left on device; free some space"),
        state.writer(),
    ):
        state.save(_tensors(2.0), RECORD | {"epoch": 3, "best_epoch": 3}, _tensors(2.0))
    monkeypatch.setattr(os, "fsync", fsync)
    found = state.load()
    assert found is not None
    assert found.record["epoch"] == 2
    assert state.best(found.record)["network/a"].max() == 1
    assert not list(state.folder.glob("*.partial"))


def test_a_second_process_of_the_same_fit_is_refused(state: FitState, tmp_path: Path) -> None:
    with (
        state.writer(),
        pytest.raises(AgiqaError, match="expected to be the only writer, found process"),
        FitState({"lr": 0.1}, tmp_path).writer(),
    ):
        pass


def test_a_finished_fit_keeps_no_optimiser_and_can_be_forgotten(state: FitState) -> None:
    with state.writer():
        state.save({}, RECORD, _tensors(1.0))
    found = state.load()
    assert found is not None
    assert found.tensors == {}
    assert load_file(state.folder / "best-2.safetensors").keys() == _tensors(0).keys()
    state.remove()
    assert not state.folder.exists()
