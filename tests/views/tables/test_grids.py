"""Protocols have columns of their own, published results stand beside ours, gaps stay gaps."""

from collections.abc import Callable
from pathlib import Path

from agiqa.views.tables import find_results, grids_of, published_results
from agiqa.views.tables.grids import Grid
from kit.run_files import metrics_of

RUNS = Path("runs")


def grids(figures: tuple[str, ...] = ("srcc",), published: bool = True) -> list[Grid]:
    found = find_results([RUNS]).results
    return grids_of(found, published_results() if published else [], figures)


def srcc(grid: Grid) -> dict[str, list[float | None]]:
    """By method, the values in its row."""
    return {
        " ".join([row.method, *row.trained_on, row.trained_by]).strip(): [
            cell and cell.figures["srcc"].median for cell in row.cells
        ]
        for row in grid.rows
    }


def test_two_protocols_never_share_a_column(write_run: Callable[..., Path]) -> None:
    write_run("agiqa-3k/random", {"": metrics_of(0.89, protocol="random")})
    write_run("agiqa-3k/grouped", {"": metrics_of(0.88)})
    write_run("agiqa-3k/smith", {"": metrics_of(0.87, protocol="smith2024")})
    (grid,) = grids(published=False)
    assert [c.protocol for c in grid.columns] == ["grouped", "random", "smith2024"]
    assert srcc(grid) == {"agiqa: mixture of experts on nano and nano-vision": [0.88, 0.89, 0.87]}


def test_only_the_same_split_file_is_comparable(write_run: Callable[..., Path]) -> None:
    own = metrics_of(0.885, protocol="ipce", splits_sha256="a4ced5e6f02b" + "0" * 52)
    write_run("agiqa-3k/ipce", {"": own})
    write_run("agiqa-3k/paper", {"": metrics_of(0.89, protocol="paper", splits_sha256="f" * 64)})
    write_run("agiqa-3k/old", {"": metrics_of(0.88, protocol="paper")})  # knows no digest
    (grid,) = grids()
    assert [(c.protocol, c.comparable) for c in grid.columns] == [
        ("ipce", True),
        ("paper", False),
        ("paper, another split file", False),
        ("as published", False),
    ]


def test_published_results_of_our_data_sets_and_targets_alone(
    write_run: Callable[..., Path],
) -> None:
    write_run("spaq/random", {"": metrics_of(dataset="spaq", protocol="random", target="align")})
    write_run("demo/random", {"": metrics_of(dataset="demo", synthetic=True)})
    (grid,) = grids()
    assert [(c.dataset, c.target, c.synthetic) for c in grid.columns] == [
        ("spaq", "align", False),
        ("demo", "quality", True),
    ]
    assert all(row.ours for row in grid.rows)


def test_runs_that_would_share_a_cell_are_told_apart(write_run: Callable[..., Path]) -> None:
    write_run("agiqa-3k/grouped")
    write_run("agiqa-3k/linear", {"": metrics_of(0.5)})
    write_run("agiqa-3k/random", {"": metrics_of(0.6, protocol="random")})
    (grid,) = grids(published=False)
    assert srcc(grid) == {
        "agiqa: mixture of experts on nano and nano-vision": [None, 0.6],
        "agiqa: mixture of experts on nano and nano-vision (runs/agiqa-3k/grouped)": [0.8848, None],
        "agiqa: mixture of experts on nano and nano-vision (runs/agiqa-3k/linear)": [0.5, None],
    }


def test_across_data_sets(write_run: Callable[..., Path]) -> None:
    def crossed(dataset: str, *trained_on: str) -> dict[str, object]:
        return metrics_of(0.7, dataset=dataset, protocol="cross", trained_on=[*trained_on])

    write_run("a/grouped", {"": metrics_of(), "cross/spaq": crossed("spaq", "agiqa-3k")})
    write_run("a/both", {"cross/koniq-10k": crossed("koniq-10k", "agiqa-3k", "spaq")},
              protocol="random")  # fmt: skip
    within, across = grids()
    assert "spaq" not in [c.dataset for c in within.columns]
    assert across.figures == ("srcc", "plcc_logistic", "krcc", "rmse_raw", "mae", "rmse")
    assert [c.dataset for c in across.columns] == [
        "agiqa-3k", "aigiqa-20k", "evalmi-50k", "koniq-10k", "spaq",
    ]  # fmt: skip
    ours, cells = "agiqa: mixture of experts on nano and nano-vision", srcc(across)
    assert cells["MA-AGIQA aigiqa-20k"] == [0.8053, *[None] * 4]
    assert cells["MA-AGIQA agiqa-3k"] == [None, 0.7722, *[None] * 3]
    assert cells["IPCE agiqa-3k"] == [None, None, 0.5064, None, None]
    assert cells[f"{ours} agiqa-3k grouped"] == [*[None] * 4, 0.7]
    assert cells[f"{ours} agiqa-3k spaq random"] == [*[None] * 3, 0.7, None]
