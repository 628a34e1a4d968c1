"""How the light preset's closed-form parts grow with the training images.

For each number of training images one split, or several, are fitted on made features of the
default widths, with `fit.anchors` as shipped and with all images (0), each in a process of its own.
Printed are wall time, CPU time and peak memory, and how many times as much the second takes.

    python benchmarks/many_images.py [--images 2000 4000 14000] [--splits 10]
"""

import argparse
import sys

import numpy as np
from processes import cost_of

from agiqa.core.params import Fit
from agiqa.stage2.features import Features, Targets
from agiqa.stage2.light.training import fit_light

VISUAL, PROMPTS, SEMANTIC = 18_432, 2, 576  # nano's
RANK = 300  # of what is common to the features, beside noise
SHARES = {"train": 0.7, "val": 0.1}  # of all images; the rest is not looked at


def main() -> None:
    """Measure each size with and without anchors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 4000, 8000, 14_000])
    parser.add_argument(
        "--longest-whole", type=int, default=8000, help="most images to fit without anchors"
    )
    parser.add_argument("--splits", type=int, default=1, help="splits to fit in one run")
    parser.add_argument("--one", type=int, nargs=3, help=argparse.SUPPRESS)  # and splits, anchors
    chosen = parser.parse_args()
    if chosen.one:
        _fit_one(*chosen.one)
        return
    print("training images   anchors     wall s      CPU s   peak MiB")
    for images in chosen.images:
        taken = []
        for anchors in (Fit().anchors, 0):
            if anchors == 0 and images > chosen.longest_whole:
                continue
            sizes = map(str, (images, chosen.splits, anchors))
            one = [sys.executable, __file__, "--one", *sizes]
            wall, busy, mebibytes = cost_of(one)
            taken.append(busy)
            stand = min(anchors or images, images)
            print(f"{images:>15,} {stand:>9,} {wall:>10.1f} {busy:>10.1f} {mebibytes:>10,.0f}")
        if len(taken) == 2:
            print(f"{'':>15} all images take {taken[1] / taken[0]:.2f} times the CPU time")


def _fit_one(images: int, splits: int, anchors: int) -> None:
    rng = np.random.default_rng(0)
    count = round(images * sum(SHARES.values()) / SHARES["train"])
    common = rng.normal(size=(count, RANK)).astype(np.float32)

    def seen_as(width: int) -> np.ndarray:
        vectors = common @ rng.normal(size=(RANK, width)).astype(np.float32)
        for block in np.array_split(vectors, 16):  # in place: the noise of all would be as large
            block += RANK**0.5 * rng.standard_normal(block.shape, dtype=np.float32)
        return vectors

    features = Features(
        visual=seen_as(VISUAL),
        semantic=np.stack([seen_as(SEMANTIC) for _ in range(PROMPTS)], axis=1),
        prompts=tuple(map(str, range(PROMPTS))),
        stores={},
    )
    mos = 3 + common[:, 0] + np.abs(common[:, 1]) + 0.5 * rng.normal(size=count)
    orders = [rng.permutation(count) for _ in range(splits)]
    sides = {
        seed: {"train": order[:images], "val": order[images:]} for seed, order in enumerate(orders)
    }
    targets = Targets(mos[:, None], ("quality",), ("noise",), np.zeros(len(mos), dtype=np.intp))
    fit_light(features, targets, sides, Fit(anchors=anchors))


if __name__ == "__main__":
    main()
