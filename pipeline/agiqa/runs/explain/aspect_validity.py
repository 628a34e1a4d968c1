"""How far each aspect may be believed: its relation to the MOS and to the run's error.

Spearman's rho with bootstrap intervals over prompt groups (images, where there are no groups), the
ranks held. The interval is normal on Fisher's scale, so that its ends can be widened for the
number of relations looked at (Bonferroni): an aspect is shown if a better answer goes with a
higher MOS, or with an MOS above the score, the widened interval leaves out zero, and rho is not so
small that only many images made it certain.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from agiqa.runs.explain.reason import AspectValidity

Array = NDArray[np.float64]

RESAMPLES = 2000
BLOCK = 100  # resamples at a time
LEVEL = 0.95  # of all intervals together
LEAST_RHO = 0.1
LEAST = 20  # images and groups; fewer show nothing
SEED = 0


def validity(
    aspects: Sequence[str],
    levels: Array,
    mos: Array,
    residual: Array | None,
    groups: Sequence[str],
) -> list[AspectValidity]:
    """Each aspect's relation on n images.

    Args:
        aspects: A names.
        levels: `(n, A)`.
        mos: `(n,)`.
        residual: MOS less score `(n,)`, or None where there are no scores.
        groups: of each image; equal ones are drawn together.
    """
    targets = [mos] if residual is None else [mos, residual]
    tests = len(aspects) * len(targets)
    found = [_relations(levels, each, groups, tests) for each in targets]
    nothing = np.full((3, len(aspects)), np.nan)
    by_mos, by_residual = found[0], found[1] if residual is not None else nothing
    return [
        AspectValidity(
            aspect=name,
            rho_mos=float(by_mos[0, place]),
            mos_low=float(by_mos[1, place]),
            mos_high=float(by_mos[2, place]),
            rho_residual=float(by_residual[0, place]),
            residual_low=float(by_residual[1, place]),
            residual_high=float(by_residual[2, place]),
            shown=_counts(by_mos[:, place]) or _counts(by_residual[:, place]),
        )
        for place, name in enumerate(aspects)
    ]


def _counts(relation: Array) -> bool:
    """Whether rho, low and high say enough."""
    return bool(relation[0] >= LEAST_RHO and relation[1] > 0)


def _relations(levels: Array, target: Array, groups: Sequence[str], tests: int) -> Array:
    """Rho, low and high `(3, A)`; NaN where nothing varies or there is too little."""
    columns = np.stack([rankdata(each) for each in levels.T], axis=1)
    ranks = rankdata(target)
    columns, ranks = columns - columns.mean(axis=0), ranks - ranks.mean()
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    units = int(codes.max()) + 1 if len(codes) else 0
    if units < LEAST:
        return np.full((3, levels.shape[1]), np.nan)
    one = np.ones_like(ranks)[:, None]
    y = ranks[:, None]
    table = np.concatenate([one, y, y * y, columns, columns**2, columns * y], axis=1)
    sums = np.zeros((units, table.shape[1]))
    np.add.at(sums, codes, table)
    rng = np.random.default_rng(SEED)
    drawn = [
        _rho(rng.multinomial(units, np.full(units, 1 / units), size=BLOCK) @ sums)
        for _ in range(RESAMPLES // BLOCK)
    ]
    rho = _rho(sums.sum(axis=0, keepdims=True))[0]
    centre = np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9))
    error = np.arctanh(np.clip(np.concatenate(drawn), -1 + 1e-9, 1 - 1e-9)).std(axis=0, ddof=1)
    reach = norm.ppf(1 - (1 - LEVEL) / 2 / tests) * error
    return np.stack([rho, np.tanh(centre - reach), np.tanh(centre + reach)])


def _rho(sums: Array) -> Array:
    """Pearson's r `(B, A)` from weighted sums `(B, 3 + 3 A)`; NaN for what does not vary."""
    n, y, yy = (sums[:, [place]] for place in range(3))
    x, xx, xy = np.split(sums[:, 3:], 3, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2)))
