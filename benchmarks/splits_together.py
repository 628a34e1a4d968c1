"""Are ten splits faster trained as one stacked model, or one after the other: a measured ratio.

Prints the ratio of the two, measured in turn in one run on features of AGIQA-3K's size made of
noise (the arithmetic does not depend on their values). Projections and ridge are left out: they
are the same work either way.

    python benchmarks/splits_together.py [--rounds 3] [--epochs 5]
"""

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from agiqa.core.params import Fit
from agiqa.stage2.light.split_model import Inputs
from agiqa.stage2.light.training import LightTrainer
from agiqa.stage2.targets import Scales, Sides, Targets

IMAGES, SPLITS, PROMPTS = 2982, 10, 2


def main() -> None:
    """Measure both ways in turn and print medians and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    settings = replace(Fit(), epochs=options.epochs)
    rng = np.random.default_rng(0)
    inputs = Inputs(
        torch.from_numpy(rng.normal(size=(SPLITS, IMAGES, settings.components)).astype(np.float32)),
        torch.from_numpy(
            rng.normal(size=(SPLITS, IMAGES, PROMPTS, settings.semantic_components)).astype(
                np.float32
            )
        ),
        torch.from_numpy(rng.normal(size=(SPLITS, IMAGES, 1 + PROMPTS, 1)).astype(np.float32)),
    )
    mos = rng.normal(size=(IMAGES, 1))
    targets = Targets(mos, ("quality",), ("noise",), np.zeros(IMAGES, dtype=np.intp))
    sides: Sides = {}
    for seed in range(SPLITS):
        order = rng.permutation(IMAGES)
        sides = {**sides, seed: {"train": order[:2087], "val": order[2087:2385]}}
    scales = [Scales(np.zeros((1, 1)), np.ones((1, 1)))] * SPLITS

    def together() -> None:
        LightTrainer("moe", inputs, scales, sides, targets, settings).train()

    def apart() -> None:
        for place, (seed, side) in enumerate(sides.items()):
            one = slice(place, place + 1)
            alone = Inputs(inputs.visual[one], inputs.semantic[one], inputs.expert_scores[one])
            LightTrainer("moe", alone, scales[one], {seed: side}, targets, settings).train()

    seconds: dict[str, list[float]] = {"together": [], "apart": []}
    for _ in range(options.rounds):
        for name, work in (("together", together), ("apart", apart)):
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    ratios = [a / t for a, t in zip(seconds["apart"], seconds["together"], strict=True)]
    for name, values in seconds.items():
        print(f"{name:>9}: {statistics.median(values):.2f} s for {options.epochs} epochs")
    print(f"one by one takes {statistics.median(ratios):.2f} times as long as together")


if __name__ == "__main__":
    main()
