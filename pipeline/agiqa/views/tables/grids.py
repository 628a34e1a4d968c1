"""Results laid out: a row for each method, a column for each data set, target and protocol.

Two protocols never share a column, and a result that nobody has is an empty place. Results across
data sets have a grid of their own: a row for what was trained on, a column for what was tested on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agiqa.core.model_names import in_order
from agiqa.views.tables.results import AS_PUBLISHED, CROSS, Result

# In the order of a table; others follow by name.
DATASETS = ("agiqa-3k", "aigiqa-20k", "aigciqa2023", "koniq-10k", "spaq")
TARGETS = ("quality",)
PROTOCOLS = ("grouped", "random", "paper", "official")
CROSS_FIGURES = ("srcc", "plcc_logistic", "krcc", "rmse_raw", "mae", "rmse")


@dataclass(frozen=True)
class Column:
    """What all results below each other have in common."""

    dataset: str
    target: str
    protocol: str
    synthetic: bool = False


@dataclass(frozen=True)
class Row:
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
    rows: tuple[Row, ...]

    @property
    def results(self) -> list[Result]:
        """Those in the cells, row by row."""
        return [cell for row in self.rows for cell in row.cells if cell is not None]


def grids_of(
    ours: Sequence[Result], published: Sequence[Result], figures: Sequence[str]
) -> list[Grid]:
    """The grids that our results fill, with the published results that stand beside them."""
    grids = [within_grid(ours, published, figures), cross_grid(ours, published)]
    return [grid for grid in grids if grid.rows]


def within_grid(
    ours: Sequence[Result], published: Sequence[Result], figures: Sequence[str]
) -> Grid:
    """Results on the data set of the training, and published ones of the same data and target."""
    mine = [result for result in ours if result.protocol != CROSS]
    covered = {(result.dataset, result.target) for result in mine if not result.synthetic}
    theirs = [
        result
        for result in published
        if result.protocol != CROSS and (result.dataset, result.target) in covered
    ]
    return _grid([*theirs, *mine], tuple(figures), across=False)


def cross_grid(ours: Sequence[Result], published: Sequence[Result]) -> Grid:
    """Results on other data sets than the training's; published ones where there are ours."""
    mine = [result for result in ours if result.protocol == CROSS]
    targets = {result.target for result in mine if not result.synthetic}
    theirs = [r for r in published if r.protocol == CROSS and r.target in targets]
    return _grid([*theirs, *mine], CROSS_FIGURES, across=True)


Key = tuple[str, tuple[str, ...], str]  # of a row: method, trained on, trained by


def _grid(results: Sequence[Result], figures: tuple[str, ...], across: bool) -> Grid:
    results = _told_apart(results)
    columns = sorted({_column(result) for result in results}, key=_place)
    cells = {(_key(result), _column(result)): result for result in results}
    rows = []
    for key, ours in dict.fromkeys((_key(result), result.ours) for result in _ordered(results)):
        found = tuple(cells.get((key, column)) for column in columns)
        rows.append(Row(*key, ours=ours, cells=found))
    return Grid(across, figures, tuple(columns), tuple(rows))


def _key(result: Result) -> Key:
    return (result.method, result.trained_on, result.trained_by)


def _column(result: Result) -> Column:
    return Column(result.dataset, result.target, result.protocol, result.synthetic)


def _told_apart(results: Sequence[Result]) -> list[Result]:
    """Results that would fall into one cell get their run's folder into their names."""
    met: dict[tuple[Key, Column], int] = {}
    for result in results:
        place = (_key(result), _column(result))
        met[place] = met.get(place, 0) + 1
    return [
        replace(result, method=f"{result.method} ({result.source})")
        if met[_key(result), _column(result)] > 1
        else result
        for result in results
    ]


def _ordered(results: Sequence[Result]) -> list[Result]:
    """Published ones first, in their order; then ours by model and name."""
    models = in_order(dict.fromkeys(result.model for result in results if result.ours))
    mine = [result for result in results if result.ours]
    mine.sort(key=lambda r: (models.index(r.model), r.method, r.trained_on, r.trained_by))
    return [*(result for result in results if not result.ours), *mine]


def _place(column: Column) -> tuple[object, ...]:
    by: list[tuple[Callable[[Column], str], tuple[str, ...]]] = [
        (lambda c: c.dataset, DATASETS),
        (lambda c: c.target, TARGETS),
        (lambda c: c.protocol, PROTOCOLS),
    ]
    places: list[object] = []
    for name, known in by:
        value = name(column)
        last = value == AS_PUBLISHED
        places += [last, known.index(value) if value in known else len(known), value]
    return (*places, column.synthetic)
