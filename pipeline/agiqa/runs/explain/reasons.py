"""Reasons in words, and how far each aspect may be believed.

An aspect may speak by its relation to the MOS and to the run's error: Spearman's rho with bootstrap
intervals over prompt groups (images, where there are no groups), the ranks held. The interval is
normal on Fisher's scale, so that its ends can be widened for the number of relations looked at
(Bonferroni): an aspect is shown if a better answer goes with a higher MOS, or with an MOS above the
score, the widened interval leaves out zero, and rho is not so small that only many images made it
certain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

Array = NDArray[np.float64]

RESAMPLES = 2000
BLOCK = 100  # resamples at a time
LEVEL = 0.95  # of all intervals together
LEAST_RHO = 0.1
LEAST = 20  # images and groups; fewer show nothing
SEED = 0

UNUSUAL = 10.0  # percent: below it, or above 100 less it, an aspect is worth a sentence
MOST = 3  # sentences an image; the aspects say much the same of one
WEAK, MODERATE = 0.3, 0.5  # of rho


@dataclass(frozen=True)
class Reason:
    """An aspect in which an image is unusual against well-rated images."""

    aspect: str  # the question's name in the prompt set
    text: str  # one sentence, with the numbers
    answer: str  # the answer that the model gives most above what it gives to well-rated images
    percentile: float  # 0 to 100, of the image among well-rated ones; low: worse than most of them
    strength: float  # 0 to 1: how unusual, times how well the aspect relates to the MOS


@dataclass(frozen=True)
class AspectValidity:
    """How an aspect's answers relate to the MOS and to the run's error, on the validation sides.

    Spearman's rho, with intervals widened for the number of aspects.
    """

    aspect: str
    rho_mos: float
    mos_low: float
    mos_high: float
    rho_residual: float  # of MOS less score
    residual_low: float
    residual_high: float
    shown: bool  # one of the two lies above zero, and not just so: a better answer, a better image

    @property
    def by_residual(self) -> bool:
        """Whether it is shown for its relation to the residual; else for that to the MOS."""
        weak = self.mos_low <= 0 or self.rho_mos < self.rho_residual
        return self.shown and weak and self.residual_low > 0

    @property
    def low(self) -> float:
        """The lower end of the interval by which it is shown; of the MOS's where it is not."""
        return self.residual_low if self.by_residual else self.mos_low

    @property
    def high(self) -> float:
        """The upper end of the same interval."""
        return self.residual_high if self.by_residual else self.mos_high


def validity(
    aspects: Sequence[str],
    levels: Array,
    mos: Array,
    residual: Array | None,
    groups: Sequence[str],
) -> list[AspectValidity]:
    """Each of A aspects' relation on n images, by their levels `(n, A)`.

    The residual is MOS less score, None where there are no scores; images of equal groups are drawn
    together.
    """
    tests = len(aspects) * (1 if residual is None else 2)
    by_mos = _relations(levels, mos, groups, tests)
    by_residual = np.full((3, len(aspects)), np.nan)
    if residual is not None:
        by_residual = _relations(levels, residual, groups, tests)
    return [
        AspectValidity(name, *[*mos_row, *residual_row, _counts(mos_row) or _counts(residual_row)])
        for name, mos_row, residual_row in zip(
            aspects, by_mos.T.tolist(), by_residual.T.tolist(), strict=True
        )
    ]


def _counts(relation: Sequence[float]) -> bool:
    """Whether rho, low and high say enough."""
    return relation[0] >= LEAST_RHO and relation[1] > 0


def _relations(levels: Array, target: Array, groups: Sequence[str], tests: int) -> Array:
    """Rho, low and high `(3, A)`; NaN where nothing varies or there is too little."""
    columns = np.stack([rankdata(column) for column in levels.T], axis=1)
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
    n, y, yy = (sums[:, [power]] for power in range(3))
    x, xx, xy = np.split(sums[:, 3:], 3, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2)))


def word_reasons(
    levels: np.ndarray,
    answers: np.ndarray,
    reference: np.ndarray,
    usual: np.ndarray,
    words: list[str],
    relations: list[AspectValidity],
) -> list[Reason]:
    """The aspects in which one image is unusual, the strongest first, of those that are `shown`.

    Of its levels `(A,)` and probabilities `(A, K)`, against well-rated images' levels `(R, A)` and
    their mean, the `usual` probabilities `(A, K)`; `words` are the K answers.
    """
    reasons = []
    for column, relation in enumerate(relations):
        others = reference[:, column]
        level = float(levels[column])
        below = float(np.mean(others < level) + np.mean(others == level) / 2) * 100
        if not relation.shown or UNUSUAL < below < 100 - UNUSUAL:
            continue
        rho = relation.rho_residual if relation.by_residual else relation.rho_mos
        reasons.append(
            Reason(
                aspect=relation.aspect,
                text=_sentence(relation, rho, level, others, below, words),
                answer=words[int(np.argmax(answers[column] - usual[column]))],
                percentile=round(below, 1),
                strength=round(abs(below - 50) / 50 * rho, 4),
            )
        )
    return sorted(reasons, key=lambda reason: -reason.strength)[:MOST]


def _sentence(
    relation: AspectValidity,
    rho: float,
    level: float,
    others: np.ndarray,
    below: float,
    words: list[str],
) -> str:
    low = below < 50
    side, share = ("lower", 100 - below) if low else ("higher", below)
    goes = "a lower MOS" if low else "a higher MOS"
    if relation.by_residual:
        goes = f"an MOS {'below' if low else 'above'} the score"
    how = "weakly" if rho < WEAK else "moderately" if rho < MODERATE else "strongly"
    return (
        f"{relation.aspect.replace('_', ' ').capitalize()}: the model answers {level:.2f} on the "
        f"scale from {words[0]} (1) to {words[-1]} ({len(words)}), {side} than for {share:.0f} % "
        f"of the well-rated images (median {np.median(others):.2f}); such answers go with {goes}, "
        f"{how} (rho {rho:.2f}, {relation.low:.2f} to {relation.high:.2f})."
    )
