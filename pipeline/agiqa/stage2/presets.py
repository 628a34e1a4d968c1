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


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training; all of it decides the result."""

    epochs: int  # passes over the training side
    batch_size: int  # images a step, over all GPUs together
    lr: float
    weight_decay: float
    optimiser: str  # adam, or adamw (decay of matrices alone, apart from the gradient)
    schedule: str  # cycle: the rate swings to 0 and back every 100 steps; cosine: one fall
    warmup: float  # share of the steps with a rising rate
    flip: str  # vertical (what the authors' horizontal flip does), horizontal, none
    rotate: bool  # by 90, 180 or 270 degrees, while the semantic vectors are the upright image's
    augment: float  # probability of the flip, and of the rotation
    drop_last_train: bool  # leave out the images that do not fill a batch
    drop_last_val: bool
    drop_last_test: bool  # beside the full figures, those without the images left over
    ema: float  # decay of the moving average of the weights that is kept; 0: the weights themselves


AUTHORS = Recipe(
    epochs=30,
    batch_size=8,
    lr=1e-5,
    weight_decay=1e-5,
    optimiser="adam",
    schedule="cycle",
    warmup=0.0,
    flip="vertical",
    rotate=True,
    augment=0.7,
    drop_last_train=True,
    drop_last_val=True,
    drop_last_test=True,
    ema=0.0,
)
RECIPES = {
    "paper": AUTHORS,
    "paper-fixed": replace(
        AUTHORS,
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
