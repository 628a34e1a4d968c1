"""Stage 2, `fit` with the presets `paper` and `paper-fixed`: the whole network, split by split.

What is done is the recipe's (`presets`), how it is done is ours: pixels come from the cache, and
the training goes on after a stop and is shared by several GPUs (`stage2/training`). The result does
not depend on how many they are, dropout apart.
"""

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from agiqa.core.params import Params
from agiqa.stage2.paper.augmentation import Draws, as_input, augment, draw
from agiqa.stage2.paper.ensemble import BATCH, PaperEnsemble, score_rows
from agiqa.stage2.paper.inputs import PaperInputs
from agiqa.stage2.paper.network import NetworkOutput, PaperConfig, PaperRegressor, load_vit
from agiqa.stage2.presets import MIXTURE, Recipe, recipe
from agiqa.stage2.targets import Side
from agiqa.stage2.training.epochs import (
    Course,
    Training,
    digest_data,
    digest_weights,
    in_bf16,
    require_images,
)
from agiqa.stage2.training.optimisation import decayed
from agiqa.stage2.training.resume import FitState
from agiqa.stage2.training.steps import Steps
from agiqa.store.fingerprint import plain

NONE = "none"  # a backbone that starts from random weights
LEAST_VAL = 2  # images a split needs on its validation side


class PaperFit(NamedTuple):
    """What a fit yields, and the states that may be forgotten once it is written."""

    ensemble: PaperEnsemble
    curves: list[dict[str, Any]]  # model, seed, epoch, train_loss, val_srcc, val_plcc
    states: tuple[FitState, ...]


class PaperTask:
    """The paper's network on pixels and semantic vectors; squared errors on the raw scale."""

    batch = BATCH
    advice = (
        "set paper.gradient_checkpointing=true, or use one with more memory; finished epochs are "
        "kept"
    )

    def __init__(
        self, network: PaperRegressor, inputs: PaperInputs, mos: np.ndarray, recipe: Recipe
    ) -> None:
        self.network, self.inputs, self.recipe = network, inputs, recipe
        self.mos = torch.from_numpy(mos.astype(np.float32))

    def groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """All parameters at one rate."""
        return decayed(self.network.parameters(), recipe)

    def start(self, device: torch.device) -> None:
        """Nothing: the network starts as it was made."""

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        """Draw the flips and turns of a step."""
        return draw(count, self.recipe, rng)

    def loss(self, rows: np.ndarray, draws: Any, device: torch.device) -> Tensor:
        """Squared errors of the images, summed."""
        pixels = torch.from_numpy(self.inputs.pixels[rows]).to(device)
        image = as_input(augment(pixels, draws, self.recipe.flip))
        semantic = torch.from_numpy(self.inputs.semantic[rows]).to(device)
        score: Tensor = self.network(image, semantic).score
        return (score.float() - self.mos[rows].to(device)).square().sum()

    def scores(
        self,
        forward: Callable[..., NetworkOutput],
        rows: np.ndarray,
        size: int,
        device: torch.device,
    ) -> Tensor:
        """Scores `(n,)` of the images."""
        pixels, semantic = self.inputs.pixels, self.inputs.semantic
        return score_rows(forward, device, pixels, semantic, rows, size).score


def fit_paper(
    inputs: PaperInputs,
    mos: np.ndarray,
    sides: Mapping[int, Side],
    params: Params,
    accelerator: Accelerator,
    ledger: Path | None = None,
) -> PaperFit:
    """Train one network for each split, in turn.

    Args:
        inputs: of all N images.
        mos: scores `(N,)`.
        sides: by split seed, row numbers of train and val (a test side is not looked at).
        params: all settings; fit.preset is `paper` or `paper-fixed`.
        accelerator: of `start_processes`.
        ledger: where unfinished fits are kept, seen by all processes; by default
            `agiqa.store.default_root()`.

    Raises:
        AgiqaError: too few images for a batch, scores without spread, weights for the backbone
            that do not fit it, a loss that is not finite, or too little memory for one image.
    """
    chosen, size = recipe(params), recipe(params).batch_size
    least = {"train": size if chosen.drop_last_train else 1, "val": LEAST_VAL}
    require_images(mos, sides, least, f"with batches of {size}")
    config = PaperConfig(semantic_width=inputs.semantic.shape[-1], **asdict(params.paper.network))
    curves: list[dict[str, Any]] = []
    weights, states = [], []
    for seed, side in sides.items():
        network = _start(config, params)
        bf16 = in_bf16(params.paper.precision, accelerator)
        identity = {
            "recipe": asdict(chosen),
            "network": plain(asdict(config)),
            "seed": params.fit.seed,
            "split": seed,
            "bf16": bf16,
            "tf32": False,
            "initial_sha256": digest_weights(network),
            "data_sha256": digest_data(inputs.image_ids, (mos, inputs.semantic), side),
            "stores": plain(inputs.stores),
            "versions": {name: importlib.metadata.version(name) for name in ("agiqa", "torch")},
        }
        share = -(-size // accelerator.num_processes)
        at_a_time = min(share, params.paper.micro_batch or share)
        task = PaperTask(network, inputs, mos, chosen)
        steps = Steps(task, chosen, bf16, at_a_time, accelerator)
        val = _whole(side["val"], chosen)
        course = Course(MIXTURE, "paper", seed, params.fit.seed, side["train"], val, mos)
        trained = Training(steps, course).run_saved(identity, ledger)
        curves += trained.curves
        weights.append(trained.best())
        states.append(trained.state)
    return PaperFit(PaperEnsemble(config, weights), curves, tuple(states))


def _whole(val: np.ndarray, chosen: Recipe) -> np.ndarray:
    """The validation side, without the images that do not fill a batch if the recipe says so."""
    count = len(val) // chosen.batch_size * chosen.batch_size
    return val[:count] if chosen.drop_last_val and count else val


def _start(config: PaperConfig, params: Params) -> PaperRegressor:
    """The network as every split starts it."""
    torch.manual_seed(params.fit.seed)
    network = PaperRegressor(config)
    if params.paper.backbone != NONE:
        load_vit(network, params.paper.backbone)
    network.gradient_checkpointing = params.paper.gradient_checkpointing
    return network
