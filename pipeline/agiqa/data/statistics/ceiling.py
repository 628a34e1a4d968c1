"""The noise ceiling: the figures that a perfect predictor would reach against this MOS.

A MOS is the mean of n raters, so it differs from the opinion of the whole public by noise of
deviation s/√n, with s the raters' own deviation for that image. Nobody can predict that noise.
With V the variance of the MOS over the images and E the mean of s²/n, classical test theory (Lord
and Novick, "Statistical Theories of Mental Test Scores", 1968) gives

    reliability = 1 − E/V,   highest PLCC = √reliability,   lowest RMSE = √E

(raw, and after a fit hardly less), a lowest MAE of the mean of √(2/π) s/√n for normal noise,
and a second panel of n raters would agree with this one at a PLCC equal to the reliability. For
SRCC and KRCC there is no formula: true scores are taken to be the MOS shrunk to the variance V − E,
noise of each image's own size is drawn and added, and the mean over draws counts.

For very few raters SRCC and KRCC come out up to .02 too high (with 4; from 16 on within .01).

Assumed: raters err independently and without a common bias, and the deviation is in the MOS's
units. Both make the ceiling too high rather than too low where they fail (a bias that a whole panel
shares is no noise here). A training side carries the same noise, so a real model stays below.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable, Target
from agiqa.data.metrics import krcc, srcc

Array = NDArray[np.float64]

DRAWS = 100
# Raters an image, by how a data set's source begins, where its authors state them in words alone:
# AGIQA-3K's 21 are those of arXiv 2306.04717.
STATED = {"AGIQA-3K": 21}
PANELS = (5, 10, 15, 20, 30, 50, 100)  # raters, where their number is not known


@dataclass(frozen=True)
class Ceiling:
    """The best that can be reached, by figure."""

    raters: float  # ratings an image; their mean where images differ
    images: int
    reliability: float  # share of the MOS's variance that is not the raters' noise
    srcc: float
    krcc: float
    plcc: float
    rmse: float  # the least
    mae: float  # the least


def noise_ceiling(
    mos: Array, deviation: Array, raters: float | Array, draws: int = DRAWS
) -> Ceiling:
    """Estimate the ceiling for N images with a MOS and the raters' standard deviation.

    Args:
        mos: scores `(N,)`; images where it or the deviation is NaN, or that nobody rated, are left
            out.
        deviation: of the single ratings, in the units of the MOS `(N,)`.
        raters: ratings an image, one number or `(N,)`.
        draws: simulated panels, for SRCC and KRCC.

    Returns:
        NaN figures for fewer than three images, or where all targets are equal; a reliability of 0,
        and correlations of 0, where the raters' noise explains all of the MOS's variance.
    """
    counts = np.broadcast_to(np.asarray(raters, dtype=float), mos.shape)
    usable = np.isfinite(mos) & np.isfinite(deviation) & np.isfinite(counts)
    usable &= (counts > 0) & (deviation >= 0)
    mos, error = mos[usable], deviation[usable] / np.sqrt(counts[usable])
    raters = float(counts[usable].mean()) if usable.any() else math.nan
    if len(mos) < 3 or (mos == mos[0]).all():
        return Ceiling(raters, len(mos), *[math.nan] * 6)
    noise = float(np.mean(np.square(error)))
    mae = math.sqrt(2 / math.pi) * float(error.mean())
    reliability = max(0.0, 1 - noise / float(mos.var(ddof=1)))
    if reliability == 0:
        return Ceiling(raters, len(mos), 0.0, 0.0, 0.0, 0.0, math.sqrt(noise), mae)
    true = mos.mean() + math.sqrt(reliability) * (mos - mos.mean())
    rng = np.random.default_rng(0)
    panels = [true + rng.normal(0, error) for _ in range(draws)]
    return Ceiling(
        raters,
        len(mos),
        reliability,
        float(np.mean([srcc(panel, true) for panel in panels])),
        float(np.mean([krcc(panel, true) for panel in panels])),
        math.sqrt(reliability),
        math.sqrt(noise),
        mae,
    )


def ceilings_of(
    table: ImagesTable, target: str = "", raters: Sequence[float] = ()
) -> list[dict[str, Any]]:
    """Give the ceilings of a target, "" of every one with raters' deviations, as fields.

    `raters` are ratings an image; none: as the data set or its authors say, else several panels.

    Raises:
        AgiqaError: no deviations are known.
    """
    measured = [rated for rated in table.targets if rated.deviation]
    selected = [rated for rated in measured if target in ("", rated.name)]
    if not selected:
        raise AgiqaError(
            f"{table.name}: the raters' deviations are known for "
            f"{', '.join(rated.name for rated in measured) or 'no target'}"
            f"{f', not for {target}' if target else ''}: without them there is no ceiling. Name "
            "their columns in a CSV of your own (agiqa prepare --deviation-column); of the data "
            "sets built in, agiqa-3k, koniq-10k and evalmuse-40k have them"
        )
    rows = []
    for rated in selected:
        stated = known_raters(table, rated)
        mos = table.frame[rated.name].to_numpy(dtype=float)
        spread = table.frame[rated.deviation].to_numpy(dtype=float)
        panels: Sequence[Any] = raters or (PANELS if stated is None else [stated])
        rows += [
            {"target": rated.name, **asdict(noise_ceiling(mos, spread, count))} for count in panels
        ]
    return rows


def known_raters(table: ImagesTable, target: Target) -> Array | None:
    """Look up ratings of each image `(N,)`, where the data set or its authors say so; else None."""
    if target.raters:
        return np.asarray(table.frame[target.raters].to_numpy(dtype=float))
    counts = (count for name, count in STATED.items() if table.source.startswith(name))
    count = next(counts, None)
    return None if count is None else np.full(len(table.frame), float(count))
