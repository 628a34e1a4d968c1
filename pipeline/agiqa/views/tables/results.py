"""What a table is made of: one method's figures on one data set, by one protocol.

Evaluated runs (`evaluated`) and published figures (`published`) become `Result`s alike; `grids`
lays them out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agiqa.data.metric_names import FIGURES as KNOWN

# Figures by their name in metrics.json: heading, whether less is better. What a publication calls
# PLCC may be fitted or not, so the column of the fitted one is not called more than that.
FIGURES = {
    name: ("PLCC" if name == "plcc_logistic" else figure.heading, figure.less_is_better)
    for name, figure in KNOWN.items()
}
CROSS = "cross"  # the protocol of a result on another data set than the training's
AS_PUBLISHED = "as published"  # a column of results whose protocols differ among themselves


@dataclass(frozen=True)
class Value:
    """One figure of one result; a published one is kept as printed."""

    median: float | None = None  # over splits; None of a range
    sd: float | None = None  # over splits; None where there is one split, or none is known
    interval: tuple[float, float] | None = None  # 95 %
    ends: tuple[float, float] | None = None  # of a published range
    why: str = ""  # there is no median, or no interval
    printed: tuple[str, ...] = ()  # a published figure's digits; two for a range


@dataclass(frozen=True)
class Result:
    """One method on one data set."""

    method: str
    dataset: str  # that it was tested on
    target: str
    protocol: str
    figures: Mapping[str, Value]  # those that are known, by their name in FIGURES
    ours: bool
    said: str  # the protocol in words
    source: str  # a run's folder, or a publication
    model: str = ""  # of ours: its name in the run
    note: str = ""
    splits: int | None = None  # None where that is not known
    synthetic: bool = False  # a data set that the project made itself
    trained_on: tuple[str, ...] = field(default=())  # of the protocol `cross`
    trained_by: str = ""  # of the protocol `cross`: the protocol that gave the training side
