"""The authors' checkpoints: read safely, whole or not at all, and then a run like any other."""

import io
import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Network
from agiqa.runs.files import load_run
from agiqa.stage2.paper.weights import read_reference_checkpoint
from kit.command import one_line

Run = Callable[..., Result]
State = dict[str, torch.Tensor]


@pytest.fixture
def imported(workspace: Path, run: Run, reference_state: State) -> Callable[..., Result]:
    """Writes the file and imports it as runs/authors."""

    def call(content: Any = None, *more: str) -> Result:
        torch.save(reference_state if content is None else content, workspace / "authors.pt")
        command = ("import-checkpoint", "authors.pt", "runs/authors", "--dataset", "mine", *more)
        return run(*command)

    return call


def _one_line(result: Result, *parts: str) -> None:
    one_line(result, *parts)
    assert not Path("runs/authors").exists()


def test_an_imported_run_evaluates_reports_and_scores(
    imported: Callable[..., Result], run: Run, reference_state: State
) -> None:
    result = imported()
    assert result.exit_code == 0, result.output
    assert "agiqa evaluate runs/authors" in result.stdout
    assert run("evaluate", "runs/authors").exit_code == 0
    assert run("report", "runs/authors").exit_code == 0
    provenance = json.loads(Path("runs/authors/provenance.json").read_text())
    assert provenance["preset"] == "paper"
    assert provenance["protocol"] == "paper"
    assert provenance["seeds"] == [20]
    assert provenance["imported"]["file"] == "authors.pt"
    page = Path("runs/authors/report.html").read_text()
    assert "agiqa import-checkpoint authors.pt runs/authors --dataset mine" in page
    assert "Learning curves" not in page
    splits = pd.read_csv("cache/mine/splits/paper.csv")
    tested = pd.read_csv("runs/authors/predictions.csv").query("model == 'moe'")
    assert sorted(tested["path"]) == sorted(splits[splits["side"] == "test"]["name"])


@pytest.mark.parametrize("spoil", [lambda t: t * float("nan"), lambda t: t.long()])
def test_weights_that_are_no_numbers_are_refused(
    imported: Callable[..., Result], reference_state: State, spoil: Callable[..., torch.Tensor]
) -> None:
    name = next(iter(reference_state))
    changed = reference_state | {name: spoil(reference_state[name])}
    _one_line(imported(changed), "found damaged ones (tensor", name)


def test_the_run_scores_as_the_network_does(
    imported: Callable[..., Result], workspace: Path
) -> None:
    assert imported().exit_code == 0
    ours = load_run(Path("runs/authors"))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    semantic = np.random.default_rng(0).normal(size=(3, 2, 12)).astype(np.float32)
    direct = read_reference_checkpoint(workspace / "authors.pt", ours.params.paper.network)
    before, after = (each.predict(pixels, semantic) for each in (direct, ours.ensemble))
    assert torch.equal(before.score, after.score)
    assert before.score.std() > 0


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_weights_may_be_nested_and_wrapped(
    key: str, reference_state: State, tiny: Network, tmp_path: Path
) -> None:
    wrapped = OrderedDict((f"module.{name}", t) for name, t in reference_state.items())
    for name, content in (("plain", reference_state), ("nested", {key: wrapped, "epoch": 7})):
        torch.save(content, tmp_path / name)
    plain, nested = (
        read_reference_checkpoint(tmp_path / name, tiny).weights[0] for name in ("plain", "nested")
    )
    assert plain.keys() == nested.keys()
    assert all(torch.equal(plain[name], nested[name]) for name in plain)


def test_what_is_no_checkpoint_of_theirs_is_one_line(
    imported: Callable[..., Result], reference_state: State
) -> None:
    _one_line(imported({}), "expected weights by name")
    _one_line(imported([1, 2]), "expected weights by name, found list")
    _one_line(imported({"epoch": 7, **reference_state}), "found int as 'epoch'")


class _Code:
    """A pickle that would make a file, if it were run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("owned",)


def test_code_in_a_pickle_is_refused_and_not_run(
    imported: Callable[..., Result], run: Run, reference_state: State, workspace: Path
) -> None:
    _one_line(
        imported({**reference_state, "x": _Code()}), "could run code", "nothing of it was run"
    )
    _one_line(imported(torch.nn.Linear(2, 2)), "could run code", "net.state_dict()")
    (workspace / "plain.pt").write_bytes(pickle.dumps(_Code()))
    _one_line(run("import-checkpoint", "plain.pt", "runs/authors", "--dataset", "mine"), "plain.pt")
    assert not (workspace / "owned").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files_are_one_line(
    zipped: bool, reference_state: State, tiny: Network, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    torch.save(reference_state, stream, _use_new_zipfile_serialization=zipped)
    whole, cut = stream.getvalue(), tmp_path / "cut.pt"
    for length in (0, 1, 60, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(AgiqaError, match=r"cut\.pt: [^\n]*$"):
            read_reference_checkpoint(cut, tiny)
    with pytest.raises(AgiqaError, match=r"none\.pt: no such file"):
        read_reference_checkpoint(tmp_path / "none.pt", tiny)


def test_a_store_that_does_not_fit_is_one_line(
    imported: Callable[..., Result], write_store: Callable[..., None]
) -> None:
    write_store(width=10)
    _one_line(imported(), "expected semantic vectors 12 wide", "found 10")
    write_store(prompts=("one",))
    _one_line(imported(), "expected two vectors an image")


def test_a_data_set_that_is_not_ready_is_one_line(
    imported: Callable[..., Result], run: Run, workspace: Path
) -> None:
    (workspace / "params.yaml").write_text("semantic: {name: absent}\n")
    _one_line(imported(), "No feature store cache/mine/absent.zarr", "agiqa extract mine")
    _one_line(imported(None, "--target", "beauty"), "no target 'beauty'")
    again = run("import-checkpoint", "authors.pt", "runs/authors", "--dataset", "yours")
    _one_line(again, "cache/yours", "prepare")


def test_names_that_nobody_knows_are_an_error(
    imported: Callable[..., Result], reference_state: State
) -> None:
    more = {**reference_state, "extra.weight": torch.zeros(1)}
    _one_line(imported(more), "authors.pt", "unexpected (extra.w")


def test_other_sizes_in_the_settings_are_an_error(
    imported: Callable[..., Result], workspace: Path
) -> None:
    _one_line(imported(None, "--set", "paper.network.width=32"), "misshapen", "paper.network")
    _one_line(imported(None, "--set", "paper.network.heads=3"), "width by heads", "16 by 3")
