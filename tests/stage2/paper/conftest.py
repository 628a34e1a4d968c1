"""A data set with real image files, semantic vectors that know the answer, and tiny networks."""

import json
import math
import os
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from PIL import Image

from agiqa.core.params import Fit, Network, Paper, Params
from agiqa.data.datasets.table import read_table
from agiqa.data.splits.files import write_splits
from agiqa.data.splits.protocols import make_splits
from agiqa.stage2.paper.inputs import PaperInputs, Pixels
from agiqa.stage2.paper.network import PaperConfig, PaperRegressor
from agiqa.stage2.paper.training import fit_paper
from agiqa.stage2.paper.weights import DEAD, reference_name
from agiqa.stage2.training.epochs import start_processes
from agiqa.stage2.training.resume import Fitted
from agiqa.store import write_pack
from kit.command import agiqa
from kit.rated import one_target
from kit.tiny_workspace import copy_workspace

IMAGES = 44
WIDTH = 12  # of the semantic vectors
TINY = Network(image_size=32, patch_size=4, width=16, heads=2, layers_run=(0, 1), swin_mlp=16)
PROMPTS = ("semantic_content", "coherence")
Sides = dict[int, dict[str, np.ndarray]]
AS_IF_100_WIDE = ("pos_embed", "cls_token", "relative_position_bias_table")


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs `agiqa` with these arguments."""
    return partial(agiqa, status=None)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a prepared data set `mine`, its vectors, and settings for tiny nets."""
    folder = tmp_path_factory.mktemp("paper")
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, IMAGES)
    (folder / "images").mkdir()
    for row, score in enumerate(mos):
        noise = rng.integers(0, 40, (40, 48, 3))
        pixels = np.clip(noise + 40 * score, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{row:02d}.png")
    labels = pd.DataFrame({"path": [f"{row:02d}.png" for row in range(IMAGES)], "quality": mos})
    labels.to_csv(folder / "images/labels.csv", index=False)
    (folder / "params.yaml").write_text(
        "fit: {preset: paper, protocol: paper}\n"
        "semantic: {name: lmm}\n"
        "paper:\n"
        "  {backbone: none, epochs: 3, batch_size: 4, lr: 0.003, augment: 0.2, workers: 1,\n"
        "  network: {image_size: 32, patch_size: 4, width: 16, heads: 2, layers_run: [0, 1],\n"
        "    swin_mlp: 16}}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prepare = ["prepare", "mine", "--from", "images/labels.csv", "--score-column", "quality"]
        agiqa(*prepare, "--set", "splits.count=2")
        # as if it were one of MA-AGIQA's data sets, which alone are offered this protocol
        splits = make_splits(read_table("cache/mine"), "paper")
        write_splits(splits, Path("cache/mine/splits/paper.csv"))
        write_vectors()
    return folder


@pytest.fixture(scope="session")
def evaluated(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A copy with the evaluated run `runs/mine/paper`, and what `fit` and `evaluate` printed."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        _work_in_copy(prepared, folder, patch)
        commands = (["fit", "mine", "--json"], ["evaluate", folder / "runs/mine/paper"])
        return folder, [agiqa(*words).stdout for words in commands]


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the working folder, as the working one."""
    _work_in_copy(prepared, tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def run_folder(
    evaluated: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The evaluated run, in a copy of its working folder as the working one."""
    _work_in_copy(evaluated[0], tmp_path, monkeypatch)
    return Path("runs/mine/paper")


def _work_in_copy(source: Path, folder: Path, patch: pytest.MonkeyPatch) -> None:
    copy_workspace(source, folder)
    patch.chdir(folder)
    patch.setenv("AGIQA_STORE", str(folder / "ledger"))


def write_vectors(width: int = WIDTH, prompts: tuple[str, ...] = PROMPTS) -> None:
    """Write a store for the working folder's data set: vectors that hint at the score."""
    rng = np.random.default_rng(1)
    table = read_table(Path("cache/mine"))
    ids = list(table.frame["image_id"])
    vectors = rng.normal(size=(len(ids), len(prompts), width)) / 2
    vectors[..., 0] += table.frame["quality"].to_numpy()[:, None]
    prints = [{"extractor": "lmm", "prompt": prompt, "width": width} for prompt in prompts]
    path = Path("cache/mine/lmm.zarr")
    write_pack(path, "lmm", prompts, prints, ids, vectors.astype(np.float16))


@pytest.fixture
def write_store() -> Callable[..., None]:
    """Writes another store in its place."""
    return write_vectors


@pytest.fixture(scope="session")
def tiny() -> Network:
    return TINY


@pytest.fixture(scope="session")
def mos() -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 5, IMAGES)


@pytest.fixture(scope="session")
def inputs(mos: np.ndarray) -> PaperInputs:
    """Brighter images and longer vectors are better."""
    rng = np.random.default_rng(1)
    size = TINY.image_size
    pixels = rng.integers(0, 60, (IMAGES, size, size, 3)) + 38 * mos[:, None, None, None]
    semantic = rng.normal(size=(IMAGES, 2, WIDTH)) / 4 + mos[:, None, None] / 4
    return PaperInputs(
        image_ids=tuple(f"{row:064x}" for row in range(IMAGES)),
        pixels=Pixels(pixels.astype(np.uint8), np.arange(IMAGES)),
        semantic=semantic.astype(np.float32),
        prompts=PROMPTS,
        stores={"semantic": {}, "visual": {}},
    )


@pytest.fixture(scope="session")
def order() -> np.ndarray:
    """The images as a split deals them out."""
    return np.random.default_rng(2).permutation(IMAGES)


@pytest.fixture(scope="session")
def sides(order: np.ndarray) -> Sides:
    """A split that trains in three steps of four images, with one image left over."""
    return {20: {"train": order[:13], "val": order[29:36], "test": order[36:]}}


@pytest.fixture(scope="session")
def fitted(
    tmp_path_factory: pytest.TempPathFactory, inputs: PaperInputs, mos: np.ndarray, sides: Sides
) -> Fitted:
    """What `fit_tiny` gives without changes; not to be changed."""
    return _fit(tmp_path_factory.mktemp("fitted"), inputs, mos, sides)()


@pytest.fixture
def fit_tiny(
    tmp_path: Path, inputs: PaperInputs, mos: np.ndarray, sides: Sides
) -> Callable[..., Fitted]:
    """Fits the tiny network with changed settings; `ledger` keeps what is unfinished."""
    return _fit(tmp_path, inputs, mos, sides)


def _fit(folder: Path, inputs: PaperInputs, mos: np.ndarray, sides: Sides) -> Callable[..., Fitted]:
    def fit(preset: str = "paper", ledger: str | Path = "ledger", **changed: Any) -> Fitted:
        given = {"inputs": inputs, "mos": mos, "sides": sides}
        given |= {name: changed.pop(name) for name in list(changed) if name in given}
        given["targets"] = one_target(given.pop("mos"))
        paper = Paper(
            **{"backbone": "none", "epochs": 2, "batch_size": 4, "lr": 0.003, "network": TINY}
            | changed
        )
        params = Params(fit=Fit(preset=preset), paper=paper)
        return fit_paper(
            **given, params=params, accelerator=start_processes(), ledger=folder / ledger
        )

    return fit


@pytest.fixture(scope="session")
def golden() -> Path:
    """Tensors that the reference implementation computed."""
    repository = Path(__file__).resolve().parents[3]
    folder = Path(os.environ.get("AGIQA_GOLDEN", repository.parent / "shared" / "golden"))
    if not (folder / "ma_agiqa_regressor.npz").is_file():
        pytest.skip(f"no golden tensors in {folder}: set AGIQA_GOLDEN")
    return folder


@pytest.fixture(scope="session")
def keys(golden: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' parameters, those that never run with them."""
    found = json.loads((golden / "ma_agiqa_regressor.keys.json").read_text())
    return {name: tuple(shape) for name, shape in found.items()}


@pytest.fixture(scope="session")
def fill() -> Callable[[str, tuple[int, ...]], torch.Tensor]:
    """The rule by which the golden tensors' weights and inputs follow from their names."""

    def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        u = generator.random(math.prod(shape), dtype=np.float32).reshape(shape) * 2 - 1
        if name.startswith("input."):
            return torch.from_numpy(u)
        if len(shape) > 1:
            fan_in = 100 if name.endswith(AS_IF_100_WIDE) else math.prod(shape[1:])
            return torch.from_numpy(u * np.float32(0.6 * math.sqrt(3 / fan_in)))
        near = 1 if "norm" in name and name.endswith("weight") else 0
        return torch.from_numpy(near + np.float32(0.1) * u)

    return tensor


@pytest.fixture(scope="session")
def reference_state(
    fill: Callable[[str, tuple[int, ...]], torch.Tensor],
) -> dict[str, torch.Tensor]:
    """A tiny checkpoint of the authors': their names, and what never runs or follows from sizes."""
    network = PaperRegressor(PaperConfig(semantic_width=WIDTH, **vars(TINY)))
    names = {reference_name(name): p.shape for name, p in network.named_parameters()}
    state = {name: fill(name, tuple(shape)) for name, shape in names.items()}
    state |= {f"{name}weight": torch.ones(2, 3) for name in DEAD}
    block = "swintransformer1.layers.0.blocks.1"
    state[f"{block}.attn.relative_position_index"] = torch.arange(16)
    state[f"{block}.attn_mask"] = torch.zeros(4, 16, 16)
    return state
