"""Stage 2, `fit` with the presets `paper` and `paper-fixed`: the whole network, split by split.

What is done is the recipe's (`presets`), how it is done is ours: pixels come from the cache, and
the training goes on after a stop and is shared by several GPUs (`stage2/training`). The result does
not depend on how many they are, dropout apart.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from agiqa.core.params import Params
from agiqa.stage2.paper.augmentation import as_input, augment, draw
from agiqa.stage2.paper.ensemble import BATCH, PaperEnsemble
from agiqa.stage2.paper.inputs import PaperInputs
from agiqa.stage2.paper.network import NetworkOutput, PaperConfig, PaperRegressor, load_vit
from agiqa.stage2.presets import MIXTURE, Recipe, recipe
from agiqa.stage2.targets import Side
from agiqa.stage2.training.epochs import Course, digest_data, require_images, train
from agiqa.stage2.training.optimisation import decayed
from agiqa.stage2.training.resume import Fitted
from agiqa.store.fingerprint import plain

NONE = "none"  # a backbone that starts from random weights
LEAST_VAL = 2  # images a split needs on its validation side


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
        self.network, self.data, self.recipe = network, inputs, recipe
        self.mos = torch.from_numpy(mos.astype(np.float32))

    def groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """All parameters at one rate."""
        return decayed(self.network.parameters(), recipe)

    def start(self, device: torch.device) -> None:
        """Nothing: the network starts as it was made."""

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the flips and turns of a step."""
        return draw(count, self.recipe, rng)

    def inputs(
        self, rows: np.ndarray, device: torch.device, draws: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images and semantic vectors, the images flipped and turned as drawn."""
        pixels = torch.from_numpy(self.data.pixels[rows]).to(device)
        if draws is not None:
            pixels = augment(pixels, draws, self.recipe.flip)
        return as_input(pixels), torch.from_numpy(self.data.semantic[rows]).to(device)

    def loss(self, output: NetworkOutput, rows: np.ndarray) -> Tensor:
        """Squared errors of the images, summed."""
        score = output.score.float()
        return (score - self.mos[rows].to(score.device)).square().sum()


def fit_paper(
    inputs: PaperInputs,
    mos: np.ndarray,
    sides: Mapping[int, Side],
    params: Params,
    accelerator: Accelerator,
    ledger: Path | None = None,
) -> Fitted[PaperEnsemble]:
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
        task = PaperTask(network, inputs, mos, chosen)
        course = Course(
            model=MIXTURE,
            section="paper",
            settings=params.paper,
            recipe=chosen,
            split=seed,
            seed=params.fit.seed,
            train=side["train"],
            val=_whole(side["val"], chosen),
            mos=mos,
        )
        identity = {
            "recipe": asdict(chosen),
            "network": plain(asdict(config)),
            "tf32": False,
            "data_sha256": digest_data(inputs.image_ids, (mos, inputs.semantic), side),
            "stores": plain(inputs.stores),
        }
        best, rows, state = train(task, course, identity, accelerator, ledger)
        curves += rows
        weights.append(best)
        states.append(state)
    return Fitted(PaperEnsemble(config, weights), curves, tuple(states))


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
