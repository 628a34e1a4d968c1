"""Recipes of the paper's network: how the presets `paper` and `paper-fixed` train it, side by side.

`paper` is what the authors' code does (github.com/wangpuyi/MA-AGIQA, main.py and utils/process.py),
accidents included; `paper-fixed` is the same network without the accidents. Each of them is a
field of its own here and a setting of its own in params.yaml, section paper, where the value
`preset` stands for the one below. `paper/training.py` follows the recipe.
"""

from dataclasses import dataclass, fields, replace

from agiqa.core.params import PRESET, Params

LIGHT = "light"  # another preset: regressors on cached vectors, `light/training.py`
TUNED = "tuned"  # and another: those, and the backbone's last blocks, `tuned/training.py`
MIXTURE = "moe"  # the model that every run has, whatever its preset; others stand beside it
CONSTANT = "constant"  # one of them: a mixture of all experts that has no gate
INTERVAL_LEVEL = 0.9  # share of the images whose MOS the intervals of predictions hold


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training, by default the authors'; all of it decides the result."""

    epochs: int = 30  # passes over the training side
    batch_size: int = 8  # images a step, over all GPUs together
    lr: float = 1e-5
    weight_decay: float = 1e-5
    optimiser: str = "adam"  # or adamw (decay of matrices alone, apart from the gradient)
    schedule: str = "cycle"  # the rate swings to 0 and back every 100 steps; or cosine: one fall
    warmup: float = 0.0  # share of the steps with a rising rate
    flip: str = "vertical"  # (what the authors' horizontal flip does), horizontal, none
    rotate: bool = True  # by 90, 180 or 270 degrees, while the semantic vectors are the upright's
    augment: float = 0.7  # probability of the flip, and of the rotation
    drop_last_train: bool = True  # leave out the images that do not fill a batch
    drop_last_val: bool = True
    drop_last_test: bool = True  # beside the full figures, those without the images left over
    ema: float = 0.0  # decay of the moving average of the weights that is kept; 0: none


RECIPES = {
    "paper": Recipe(),
    "paper-fixed": Recipe(
        weight_decay=0.01,
        optimiser="adamw",
        schedule="cosine",
        warmup=0.05,
        flip="horizontal",
        rotate=False,
        augment=0.5,
        drop_last_train=False,
        drop_last_val=False,
        drop_last_test=False,
        ema=0.999,
    ),
}


def recipe(params: Params) -> Recipe:
    """The preset's recipe with the settings that params.yaml states itself."""
    stated = {field.name: getattr(params.paper, field.name) for field in fields(Recipe)}
    changed = {name: value for name, value in stated.items() if value != PRESET}
    return replace(RECIPES[params.fit.preset], **changed)
