"""What an explanation consists of: reasons, neighbours, and how far an aspect may be believed.

Made by `reasons` and `neighbours`; shown by the command line, the report and the app.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """An aspect in which an image is unusual against well-rated images."""

    aspect: str  # the question's name in the prompt set
    text: str  # one sentence, with the numbers
    answer: str  # the answer that the model gives most above what it gives to well-rated images
    percentile: float  # 0 to 100, of the image among well-rated ones; low: worse than most of them
    strength: float  # 0 to 1: how unusual, times how well the aspect relates to the MOS


@dataclass(frozen=True)
class Neighbour:
    """A rated image of the data set that looks alike."""

    path: str  # as in the images table
    mos: float
    score: float | None  # the run's mean over the splits that test it; None: not evaluated
    similarity: float  # cosine of the standardised visual features, -1 to 1
    generator: str
    same_prompt: bool  # made from the same text, so that it is alike for another reason too


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
