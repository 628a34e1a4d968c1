"""Stage 2, `fit` with the presets `paper` and `paper-fixed`: the whole network, split by split.

What is done is the recipe's (`presets`), how it is done is ours: pixels come from the cache, and
the training goes on after a stop and is shared by several GPUs (`stage2/training`). The result does
not depend on how many they are, dropout apart.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from agiqa.core.params import Params
from agiqa.stage2.features import Sides, Targets, require_images
from agiqa.stage2.paper.ensemble import BATCH, PaperEnsemble
from agiqa.stage2.paper.inputs import PaperInputs, draw, network_inputs
from agiqa.stage2.paper.network import NetworkOutput, PaperConfig, PaperRegressor
from agiqa.stage2.paper.weights import load_vit
from agiqa.stage2.presets import MIXTURE, recipe
from agiqa.stage2.training.epochs import Task, train
from agiqa.stage2.training.resume import Fitted
from agiqa.store.fingerprint import plain

NONE = "none"  # a backbone that starts from random weights
LEAST_VAL = 2  # images a split needs on its validation side


@dataclass(eq=False)
class PaperTask(Task):
    """The paper's network on pixels and semantic vectors; squared errors on the raw scale."""

    model, section, batch = MIXTURE, "paper", BATCH
    advice = (
        "set paper.gradient_checkpointing=true, or use one with more memory; finished epochs are "
        "kept"
    )

    network: PaperRegressor
    data: PaperInputs

    @property
    def val(self) -> np.ndarray:
        """The validation side, without the images that do not fill a batch if the recipe says."""
        val, size = self.side["val"], self.recipe.batch_size
        count = len(val) // size * size
        return val[:count] if self.recipe.drop_last_val and count else val

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the flips and turns of a step."""
        return draw(count, self.recipe, rng)

    def inputs(
        self, rows: np.ndarray, device: torch.device, draws: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images and semantic vectors, the images flipped and turned as drawn."""
        data = self.data
        return network_inputs(data.pixels, data.semantic, rows, device, draws, self.recipe.flip)

    def loss(self, output: NetworkOutput, rows: np.ndarray) -> Tensor:
        """Squared errors of the images, summed."""
        score = output.score.float()
        mos = torch.from_numpy(self.mos[rows].astype(np.float32))
        return (score - mos.to(score.device)).square().sum()


def fit_paper(
    inputs: PaperInputs,
    targets: Targets,
    sides: Sides,
    params: Params,
    accelerator: Accelerator,
    ledger: Path | None = None,
) -> Fitted[PaperEnsemble]:
    """Train one network for each split, in turn.

    Args:
        inputs: of all N images.
        targets: their scores, of one target and one data set.
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
    require_images(targets, sides, least, f" with batches of {size}")
    config = PaperConfig(semantic_width=inputs.semantic.shape[-1], **asdict(params.paper.network))
    curves: list[dict[str, Any]] = []
    weights, states = [], []
    for split, side in sides.items():
        task = PaperTask(
            network=_start(config, params),
            data=inputs,
            mos=targets.mos[:, 0],
            split=split,
            side=side,
            seed=params.fit.seed,
            settings=params.paper,
            recipe=chosen,
            identity={
                "recipe": asdict(chosen),
                "network": plain(asdict(config)),
                "tf32": False,
                "stores": plain(inputs.stores),
            },
        )
        best, rows, state = train(task, accelerator, ledger)
        curves += rows
        weights.append(best)
        states.append(state)
    return Fitted(PaperEnsemble(config, weights), curves, tuple(states))


def _start(config: PaperConfig, params: Params) -> PaperRegressor:
    """The network as every split starts it."""
    torch.manual_seed(params.fit.seed)
    network = PaperRegressor(config)
    if params.paper.backbone != NONE:
        load_vit(network, params.paper.backbone)
    network.gradient_checkpointing = params.paper.gradient_checkpointing
    return network
