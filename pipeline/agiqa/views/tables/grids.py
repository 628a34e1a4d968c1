"""Results, ours and published alike, laid out in grids.

A row for each method, a column for each data set, target and protocol. Two protocols never share a
column, and a result that nobody has is an empty place. Results across data sets have a grid of
their own: a row for what was trained on, a column for what was tested on.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agiqa.core.model_names import in_order
from agiqa.data.datasets import OFFICIAL
from agiqa.data.metric_names import FIGURES as KNOWN

# Headings of figures by their name in metrics.json. What a publication calls PLCC may be fitted or
# not, so the column of the fitted one is not called more than that.
FIGURES = {name: figure.heading for name, figure in KNOWN.items()} | {"plcc_logistic": "PLCC"}
CROSS = "cross"  # the protocol of a result on another data set than the training's
AS_PUBLISHED = "as published"  # a column of results whose protocols differ among themselves
ANOTHER = "another split file"  # than that of the published results under the same protocol
# What a figure carries wherever it stands, ours as well.
LEAKED, TEST_SELECTED, NOT_SEEN = "†", "‡", "°"
MARKS = {
    LEAKED: "test prompts are in training",
    TEST_SELECTED: "the epoch was chosen on the reported side",
    NOT_SEEN: "how the epoch was chosen was not found",
}


@dataclass(frozen=True)
class Value:
    """One figure of one result; a published one is kept as printed."""

    median: float | None = None  # over splits; None of a range
    sd: float | None = None  # over splits; None where there is one split, or none is known
    interval: tuple[float, float] | None = None  # 95 %
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
    protocol_note: str  # the protocol in words
    source: str  # a run's folder, or a publication
    model: str = ""  # of ours: its name in the run
    note: str = ""
    splits: int | None = None  # None where that is not known
    synthetic: bool = False  # a data set that the project made itself
    trained_on: tuple[str, ...] = ()  # of the protocol `cross`
    trained_by: str = ""  # of the protocol `cross`: the protocol that gave the training side
    marks: tuple[str, ...] = ()  # keys of MARKS
    splits_sha256: str = ""  # of its split file; the first digits of a published one's

    @property
    def column(self) -> "Column":
        """Name its column: what was tested, by which protocol."""
        return Column(self.dataset, self.target, self.protocol, self.synthetic)

    @property
    def row(self) -> tuple[str, tuple[str, ...], str]:
        """What tells its row: method, trained on, trained by."""
        return (self.method, self.trained_on, self.trained_by)


# In the order of a table; others follow by name.
DATASETS = tuple(OFFICIAL)
TARGETS = ("quality",)
PROTOCOLS = ("grouped", "ipce", "random", "paper", "official")
CROSS_FIGURES = ("srcc", "plcc_logistic", "krcc", "rmse_raw", "mae", "rmse")


@dataclass(frozen=True)
class Column:
    """What all results below each other have in common."""

    dataset: str
    target: str
    protocol: str
    synthetic: bool = False
    comparable: bool = False  # published results in it are of the same split file as ours


@dataclass(frozen=True)
class GridRow:
    """A method; across data sets, also what it was trained on."""

    method: str
    trained_on: tuple[str, ...]
    trained_by: str
    ours: bool
    cells: tuple[Result | None, ...]  # one a column; None where there is no result


@dataclass(frozen=True)
class Grid:
    """A table before it has a format."""

    across: bool  # data sets
    figures: tuple[str, ...]  # of every cell
    columns: tuple[Column, ...]
    rows: tuple[GridRow, ...]

    @property
    def results(self) -> list[Result]:
        """List the results in the cells, row by row."""
        return [cell for row in self.rows for cell in row.cells if cell is not None]


def grids_of(
    ours: Sequence[Result], published: Sequence[Result], figures: Sequence[str]
) -> list[Grid]:
    """The grids that our results fill: on the data set of the training, and across data sets.

    Published results stand where there are ours: of the same data and target, across data sets of
    the same target. They share a column with ours where the split file is the same, no other.
    """
    digests = {cited.column: cited.splits_sha256 for cited in published if cited.splits_sha256}
    ours = [  # of a published protocol, but by another split file: in a column of their own
        replace(result, protocol=f"{result.protocol}, {ANOTHER}")
        if not result.splits_sha256.startswith(digests.get(result.column, ""))
        else result
        for result in ours
    ]
    grids = []
    for across in (False, True):
        our_results = [result for result in ours if (result.protocol == CROSS) == across]
        covered = {_subject(result) for result in our_results if not result.synthetic}
        cited = [
            result
            for result in published
            if (result.protocol == CROSS) == across and _subject(result) in covered
        ]
        shown = CROSS_FIGURES if across else tuple(figures)
        grids.append(_grid([*cited, *our_results], shown, across))
    return [grid for grid in grids if grid.rows]


def _subject(result: Result) -> tuple[str, str]:
    return ("" if result.protocol == CROSS else result.dataset), result.target


def _grid(results: Sequence[Result], figures: tuple[str, ...], across: bool) -> Grid:
    """Lay results out: published ones first, in their order, then ours by model and name."""
    counts = Counter((result.row, result.column) for result in results)
    results = [  # those that would fall into one cell get their run's folder into their names
        replace(result, method=f"{result.method} ({result.source})")
        if counts[result.row, result.column] > 1
        else result
        for result in results
    ]
    columns = sorted({result.column for result in results}, key=_order)
    cells = {(result.row, result.column): result for result in results}
    rows = []
    our_results = [result for result in results if result.ours]
    models = in_order(dict.fromkeys(result.model for result in our_results))
    our_results.sort(key=lambda r: (models.index(r.model), r.method, r.trained_on, r.trained_by))
    ordered = [*(result for result in results if not result.ours), *our_results]
    for key, is_ours in dict.fromkeys((result.row, result.ours) for result in ordered):
        row = tuple(cells.get((key, column)) for column in columns)
        rows.append(GridRow(*key, ours=is_ours, cells=row))
    pairs = {(result.column, result.ours) for result in results if result.protocol != CROSS}
    columns = [
        replace(column, comparable={(column, True), (column, False)} <= pairs) for column in columns
    ]
    return Grid(across, figures, tuple(columns), tuple(rows))


def _order(column: Column) -> tuple[object, ...]:
    sort_key: list[object] = []
    for value, listed in (
        (column.dataset, DATASETS),
        (column.target, TARGETS),
        (column.protocol, PROTOCOLS),
    ):
        last = value == AS_PUBLISHED
        sort_key += [last, listed.index(value) if value in listed else len(listed), value]
    return (*sort_key, column.synthetic)
