"""Runs of others: whatever is in their files ends in one line, before memory or time is spent."""

import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import agiqa
from agiqa.core.errors import AgiqaError
from agiqa.runs.files import load_run
from kit.hostile_values import MISSING, WRONG, changed, places


def refusal(run: Path) -> str:
    """Why the run is not loaded; empty where it is."""
    try:
        load_run(run)
    except AgiqaError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("file", ["provenance.json", "params.yaml"])
def test_no_field_of_a_run_is_trusted(
    good_run: Path, file: str, count: Callable[..., None]
) -> None:
    """Every field, and every value that it should not have: refused in a line, or as good."""
    read, write = {
        "provenance.json": (json.loads, json.dumps),
        "params.yaml": (yaml.safe_load, yaml.safe_dump),
    }[file]
    path = good_run / file
    tree = read(path.read_text())
    refused = trials = 0
    pairs = [(place, value) for place in places(tree) for value in (*WRONG, MISSING)]
    explore = "AGIQA_EXPLORE" in os.environ
    chosen = np.random.default_rng(None if explore else 0).permutation(len(pairs))
    for number in chosen[: 600 if explore else 150]:  # all 3,100 take minutes
        place, value = pairs[number]
        path.write_text(write(changed(tree, place, value)))
        trials += 1
        message = refusal(good_run)
        refused += bool(message)
        assert not message or str(good_run) in message
        assert len(message) < 1000
    count(trials=trials, refused=refused)
    assert refused > trials / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"split.0.mixture.moe.gate": t["split.0.mixture.moe.gate"] * math.nan},
         r"tensor split\.0\.mixture\.moe\.gate holds NaN or infinity in [\d,]+ of [\d,]+ places"),
        (lambda t: t | {"split.0.ridge.weights": t["split.0.ridge.weights"] / 0},
         r"tensor split\.0\.ridge\.weights holds NaN or infinity"),
        (lambda t: t | {"split.0.mixture.moe.scale": t["split.0.mixture.moe.scale"].double()},
         "tensor split.0.mixture.moe.scale: expected F32, found F64"),
        (lambda t: t | {"split.0.mixture.moe.gate": t["split.0.mixture.moe.gate"][1:].clone()},
         r"tensor split\.0\.mixture\.moe\.gate: expected the shape"),
        (lambda t: t | {"split.0.mos": t["split.0.mos"].long()},
         "tensor split.0.mos: expected F16 or F32 or F64, found I64"),
        (lambda t: t | {"expert.1.mean": t["expert.1.mean"][1:].clone()},
         r"tensor expert\.1\.mean: expected the shape \(\d+,\), found"),
        (lambda t: t | {"extra\x1b": torch.zeros(1)}, r"tensor extra\\u001b is not expected"),
        (lambda t: {k: v for k, v in t.items() if k != "split.0.mos"},
         "tensor split.0.mos is missing"),
    ],
)  # fmt: skip
def test_tensors_are_what_they_should_be(
    good_run: Path, change: Callable[..., Any], message: str
) -> None:
    save_file(change(load_file(good_run / "model.safetensors")), good_run / "model.safetensors")
    with pytest.raises(AgiqaError, match=message):
        load_run(good_run)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fit": {"epochs": 10**12}}, "must be at most"),
        ({"visual": {"image_size": 1_000_000}}, "must be at most 8,192"),
        ({"visual": {"closeup": 10**12}}, "must be at most"),
        ({"semantic": {"workers": 100_000}}, "must be at most 256"),
        ({"semantic": {"pixel_budget": 10**15}}, "must be at most"),
        ({"fit": {"preset": "paper"}}, "network.semantic_width is no width"),
    ],
)
def test_sizes_take_no_memory(
    attack: Callable, good_run: Path, workspace: Path, changed: dict[str, Any], message: str
) -> None:
    tree = yaml.safe_load((good_run / "params.yaml").read_text())
    for section, values in changed.items():
        tree[section] |= values
    (good_run / "params.yaml").write_text(yaml.safe_dump(tree))
    image = workspace / "images/00.png"
    outcome = attack("score", image, "--run", good_run, seconds=10, megabytes=300)
    assert any(part in outcome.error for part in message.split("|")), outcome.error


NETWORK = {
    "image_size": 32, "patch_size": 8, "width": 16, "heads": 2, "semantic_width": 24,
    "layers_run": [0, 1], "window": 4, "swin_heads": 2, "swin_mlp": 16, "swin_scale": 0.8,
    "dropout": 0.1, "drop_path": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({}, "is missing"),
        ({"image_size": 8192, "patch_size": 1}, "is missing"),
        ({"width": 65536}, "is missing"),
        ({"layers_run": [10**9]}, "must be at most 1,000"),
        ({"layers_run": [999]}, "is missing"),
        ({"heads": 0}, "must be at least 1"),
        ({"swin_scale": "x"}, "expects a number"),
        ({"semantic_width": 10**12}, "semantic_width is no width"),
        ({"evil": 1}, "unknown setting"),
    ],
)
def test_nor_do_those_of_the_paper_s_network(
    attack: Callable, good_run: Path, workspace: Path, network: dict[str, Any], message: str
) -> None:
    tree = yaml.safe_load((good_run / "params.yaml").read_text())
    tree["fit"]["preset"] = "paper"
    (good_run / "params.yaml").write_text(yaml.safe_dump(tree))
    about = json.loads((good_run / "provenance.json").read_text())
    about["network"] = NETWORK | network
    (good_run / "provenance.json").write_text(json.dumps(about))
    image = workspace / "images/00.png"
    outcome = attack("score", image, "--run", good_run, seconds=20, megabytes=300)
    assert message in outcome.error


def _header(length: int, content: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + content


LYING = b'{"a": {"dtype":"F32","shape":[999999],"data_offsets":[0,4]}}abcd'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its header claims"),
        (_header(100_000_000, b" " * 1000), "its header claims 100,000,000 bytes"),
        (_header(2**63), "its header claims"),
        (_header(2, b"[]"), "its header is no object"),
        (_header(400_000, b"[" * 400_000), "levels deep"),
        (_header(13, b'{"a":1,"a":2}'), "stands twice"),
        (_header(9, b'{"a": {}}'), "tensor a is described otherwise"),
        (_header(60, LYING), "does not lie where the header says"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    ],
)
def test_weights_that_are_none(
    attack: Callable, good_run: Path, workspace: Path, content: bytes, message: str
) -> None:
    (good_run / "model.safetensors").write_bytes(content)
    image = workspace / "images/00.png"
    error = attack("score", image, "--run", good_run, seconds=10, megabytes=200).error
    assert message in error


def test_without_its_prompts_a_run_names_no_file_here(good_run: Path, tmp_path: Path) -> None:
    (good_run / "prompts.yaml").rename(tmp_path / "mine.yaml")
    tree = yaml.safe_load((good_run / "params.yaml").read_text())
    for name in (str(tmp_path / "mine.yaml"), "../mine", "/etc/passwd"):
        tree["semantic"]["prompts"] = name
        (good_run / "params.yaml").write_text(yaml.safe_dump(tree))
        with pytest.raises(AgiqaError, match=r"expected prompts\.yaml, found none"):
            agiqa.create_scorer(good_run)


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", "..", "\x1b[2J", "x" * 300, 3, None])
def test_a_published_name_is_a_name(good_run: Path, name: object) -> None:
    about = json.loads((good_run / "provenance.json").read_text())
    (good_run / "provenance.json").write_text(json.dumps(about | {"published": name}))
    assert "published: expected" in refusal(good_run)


def test_weights_beyond_all_numbers_score_nothing(good_run: Path, workspace: Path) -> None:
    tensors = load_file(good_run / "model.safetensors")
    tensors["split.0.mixture.moe.scale"] = torch.full_like(
        tensors["split.0.mixture.moe.scale"], 3e38
    )
    tensors["split.0.mos"] = torch.full_like(tensors["split.0.mos"], 1e300)
    save_file(tensors, good_run / "model.safetensors")
    scorer = agiqa.create_scorer(good_run, workspace / "ledger")
    with pytest.raises(AgiqaError, match="the scores come to no numbers"):
        scorer([workspace / "images/00.png"])


def test_a_good_run_scores_within_these_limits(
    attack: Callable, good_run: Path, workspace: Path, tmp_path: Path
) -> None:
    """Without it the others would prove nothing."""
    shutil.copytree(workspace / "ledger", tmp_path / "ledger")
    outcome = attack("score", workspace / "images/00.png", "--run", good_run, megabytes=300)
    assert outcome.status == 0, outcome.err
