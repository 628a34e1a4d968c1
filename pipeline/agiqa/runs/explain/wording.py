"""Reasons in words: one sentence an aspect, its numbers in it."""

import numpy as np

from agiqa.runs.explain.reason import AspectValidity, Reason

UNUSUAL = 10.0  # percent: below it, or above 100 less it, an aspect is worth a sentence
MOST = 3  # sentences an image; the aspects say much the same of one
WEAK, MODERATE = 0.3, 0.5  # of rho


def word_reasons(
    levels: np.ndarray,
    answers: np.ndarray,
    reference: np.ndarray,
    usual: np.ndarray,
    words: list[str],
    relations: list[AspectValidity],
) -> list[Reason]:
    """The aspects in which one image is unusual, the strongest first.

    Args:
        levels: of the image `(A,)`.
        answers: its probabilities `(A, K)`.
        reference: levels `(R, A)` of well-rated images.
        usual: their mean probabilities `(A, K)`.
        words: the K answers.
        relations: of the A aspects; those not `shown` are left out.
    """
    found = []
    for place, relation in enumerate(relations):
        if not relation.shown:
            continue
        others = reference[:, place]
        below = float(np.mean(others < levels[place]) + np.mean(others == levels[place]) / 2) * 100
        if UNUSUAL < below < 100 - UNUSUAL:
            continue
        by_residual = relation.by_residual
        rho = relation.rho_residual if by_residual else relation.rho_mos
        found.append(
            Reason(
                aspect=relation.aspect,
                text=_sentence(
                    relation, by_residual, rho, float(levels[place]), others, below, words
                ),
                answer=words[int(np.argmax(answers[place] - usual[place]))],
                percentile=round(below, 1),
                strength=round(abs(below - 50) / 50 * rho, 4),
            )
        )
    return sorted(found, key=lambda reason: -reason.strength)[:MOST]


def _sentence(
    relation: AspectValidity,
    by_residual: bool,
    rho: float,
    level: float,
    others: np.ndarray,
    below: float,
    words: list[str],
) -> str:
    low = below < 50
    side, share = ("lower", 100 - below) if low else ("higher", below)
    goes = "a lower MOS" if low else "a higher MOS"
    if by_residual:
        goes = f"an MOS {'below' if low else 'above'} the score"
    how = "weakly" if rho < WEAK else "moderately" if rho < MODERATE else "strongly"
    return (
        f"{relation.aspect.replace('_', ' ').capitalize()}: the model answers {level:.2f} on the "
        f"scale from {words[0]} (1) to {words[-1]} ({len(words)}), {side} than for {share:.0f} % "
        f"of the well-rated images (median {np.median(others):.2f}); such answers go with {goes}, "
        f"{how} (rho {rho:.2f}, {relation.low:.2f} to {relation.high:.2f})."
    )
