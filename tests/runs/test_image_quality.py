"""agiqa.ImageQuality: the mean over all images, over all processes, and without its extra."""

import copy
import multiprocessing
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import agiqa
from agiqa.core.errors import AgiqaError
from kit.tiny_workspace import RUN


@pytest.fixture(scope="module")
def metric(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of the tiny run."""
    ledger = tmp_path_factory.mktemp("ledger")
    return agiqa.ImageQuality(agiqa.create_scorer(tiny_workspace / RUN, ledger))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand((5, 3, 24, 32), generator=torch.Generator().manual_seed(0))


def test_it_is_the_mean_of_all_scores(metric: Any, images: torch.Tensor) -> None:
    scores = torch.tensor([score.score for score in metric.scorer(images)])
    metric.reset()
    metric.update(images[:3])
    metric.update([images[3], images[4]])
    assert metric.compute().item() == pytest.approx(scores.mean().item(), abs=1e-5)
    assert metric(images[:1]).item() == pytest.approx(scores[0].item(), abs=1e-4)  # the batch's own
    assert metric.compute().item() == pytest.approx((scores.sum() + scores[0]).item() / 6, abs=1e-4)
    with pytest.raises(AgiqaError, match="numbers from 0 to 1"):
        metric.update(images * 2)
    assert int(metric.count) == 6
    twin = copy.deepcopy(metric)  # as MetricCollection.clone does
    assert twin.compute() == metric.compute()
    assert twin.scorer is metric.scorer  # and the models are there once
    sent = pickle.loads(pickle.dumps(metric))  # to another process
    assert sent.compute() == metric.compute()
    assert sent(images[:1]) == metric(images[:1])


def test_processes_reduce_to_one_mean(metric: Any, images: torch.Tensor, tmp_path: Path) -> None:
    """Two ranks of a real group, with other numbers of images."""
    expected = torch.tensor([score.score for score in metric.scorer(images)]).mean().item()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    ranks = [
        context.Process(
            target=_rank, args=(rank, tmp_path / "meet", metric, images, answers), daemon=True
        )
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert [answers.get() for _ in ranks] == [pytest.approx(expected, abs=1e-4)] * 2


def _rank(rank: int, meeting: Path, metric: Any, images: torch.Tensor, answers: Any) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
    )
    metric.reset()
    metric.update(images[:2] if rank == 0 else images[2:])
    answers.put(metric.compute().item())
    torch.distributed.destroy_process_group()


def test_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "agiqa.runs.image_quality", raising=False)
    with pytest.raises(AgiqaError, match=r"pip install 'agiqa\[torchmetrics\]'"):
        agiqa.ImageQuality  # noqa: B018
