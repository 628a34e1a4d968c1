"""Three made cases that show what the gate of the preset `light` does, with the default settings.

2,982 images, as AGIQA-3K has, with one visual and two semantic vectors of 64 noisy features each;
those that know the score hold it through noise.

    gate    one visual feature tells whether the visual or the semantic vectors know the score, the
            others holding some other value: only a gate that looks at the image can win
    equal   all know it: gate and constant mixture must be the same
    noise   the semantic vectors hold nothing: the mixture must lose nothing to visual only

Printed are the median SRCC over the splits of every model, in how many splits validation kept the
gate, the gate's mean weight of the visual expert in either kind of images, and the time of the fit.

    python benchmarks/gate.py [--splits 10] [--cases gate equal noise]
"""

import argparse
import time

import numpy as np

from agiqa.core.params import Fit
from agiqa.data.metrics import srcc
from agiqa.stage2.features import Features, Sides, Targets
from agiqa.stage2.light.training import fit_light
from agiqa.stage2.predictors import gate_epochs, score_split
from agiqa.stage2.presets import MIXTURE

IMAGES, WIDTH = 2982, 64
NOISE = 0.5  # of a feature, over its part of the score
OTHER = 0.5  # deviation of the value, nothing to do with the score, that others hold instead
TOLD = 0.1  # noise of the feature that tells which kind an image is
RATERS = 0.15  # noise of the MOS
CASES = ("gate", "equal", "noise")


def main() -> None:
    """Fit each case and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    chosen = parser.parse_args()
    for case in chosen.cases:
        print(f"{case}: {measured(case, chosen.splits)}")


def measured(case: str, splits: int) -> str:
    """Fit a case on so many splits and say what came of it."""
    features, mos, kind = made_case(case)
    sides = _sides(splits)
    targets = Targets(mos[:, None], ("quality",), ("made",), np.zeros(IMAGES, dtype=np.intp))
    started = time.monotonic()
    ensemble, _ = fit_light(features, targets, sides, Fit())
    seconds = time.monotonic() - started
    tests = [side["test"] for side in sides.values()]
    scores = [score_split(ensemble, features, place, rows) for place, rows in enumerate(tests)]
    words = []
    for model in scores[0]:
        pairs = zip(tests, scores, strict=True)
        srccs = [srcc(mos[rows], split[model].score[:, 0]) for rows, split in pairs]
        words.append(f"{model} {np.median(srccs):.4f}")
    weights = [_visual_weights(split[MIXTURE].gate[:, 0, 0], kind[rows])
               for rows, split in zip(tests, scores, strict=True)]  # fmt: skip
    kept = sum(epoch > 0 for epoch in gate_epochs(ensemble, 0))
    knows, knows_not = np.mean(weights, axis=0)
    return (
        f"{', '.join(words)}; gate kept in {kept} of {splits} splits, weight of the visual expert "
        f"{knows:.2f} where it knows the score, {knows_not:.2f} where not; {seconds:.0f} s"
    )


def _visual_weights(gate: np.ndarray, kind: np.ndarray) -> list[float]:
    """Mean weight of the visual expert in the images of either kind."""
    return [float(gate[kind].mean()), float(gate[~kind].mean())]


def made_case(case: str) -> tuple[Features, np.ndarray, np.ndarray]:
    """Make a case: features, MOS `(N,)`, and whose score the visual vector knows `(N,)`."""
    rng = np.random.default_rng(0)
    score, kind = rng.normal(size=IMAGES), rng.random(IMAGES) < 0.5

    def vector(knows: np.ndarray) -> np.ndarray:
        value = np.where(knows, score, OTHER * rng.normal(size=IMAGES))
        part = rng.normal(size=WIDTH)
        return value[:, None] * part + NOISE * rng.normal(size=(IMAGES, WIDTH))

    every = np.ones(IMAGES, dtype=bool)
    visual = vector(kind if case == "gate" else every)
    semantic = [vector(~kind if case == "gate" else every) for _ in range(2)]
    if case == "noise":
        semantic = [rng.normal(size=(IMAGES, WIDTH)) for _ in range(2)]
    visual[:, 0] = np.where(kind, 1, -1) + TOLD * rng.normal(size=IMAGES)
    features = Features(
        visual.astype(np.float32),
        np.stack(semantic, axis=1).astype(np.float32),
        ("semantic_content", "coherence"),
        {},
    )
    return features, 3 + score + RATERS * rng.normal(size=IMAGES), kind


def _sides(splits: int) -> Sides:
    """Deal the images 70/10/20 at random, once for each split."""
    ends = [round(0.7 * IMAGES), round(0.8 * IMAGES)]
    return {
        seed: dict(
            zip(
                ("train", "val", "test"),
                np.split(np.random.default_rng(seed).permutation(IMAGES), ends),
                strict=True,
            )
        )
        for seed in range(splits)
    }


if __name__ == "__main__":
    main()
