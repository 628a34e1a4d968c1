from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Splits
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.splits.preparing import make_all_splits
from agiqa.data.splits.protocols import has_official, make_splits

MakeTable = Callable[..., ImagesTable]


def with_sets(table: ImagesTable, sets: list[str], secret: tuple[str, ...] = ()) -> ImagesTable:
    """The table with official sets; those in `secret` keep their scores."""
    frame = table.frame.assign(set=sets)
    hidden = frame["set"].isin(secret)
    return replace(table, frame=frame.assign(quality=frame["quality"].where(~hidden)))


SETS = ["train"] * 6 + ["val"] * 2 + ["test"] * 3 + [""]


def test_official_sides_are_taken_as_they_are(make_table: MakeTable) -> None:
    table = with_sets(make_table([f"p{row}" for row in range(12)]), SETS)
    splits = make_splits(table, "official", count=5, seed=7)
    assert splits["seed"].unique().tolist() == [0]
    side = dict(zip(splits["name"], splits["side"], strict=True))
    assert side == {f"{row:04d}.png": name for row, name in enumerate(SETS) if name}


def test_what_to_use_where_there_are_none(make_table: MakeTable) -> None:
    table = make_table([f"p{row}" for row in range(12)])
    assert not has_official(table)
    with pytest.raises(AgiqaError, match="tiny has no official sets: use --protocol grouped"):
        make_splits(table, "official")
    no_val = with_sets(table, ["train"] * 8 + ["test"] * 4)
    with pytest.raises(AgiqaError, match=r"no official val side \(found train 8, test 4\): use"):
        make_splits(no_val, "official")
    secret = with_sets(table, SETS, ("val", "test"))
    with pytest.raises(
        AgiqaError,
        match=r"val side \(2 images\) and test side \(3 images\) are not public: .* the 7 images",
    ):
        make_splits(secret, "official")


@pytest.mark.parametrize("protocol", ["grouped", "random", "paper"])
def test_images_without_a_score_are_on_no_side(make_table: MakeTable, protocol: str) -> None:
    table = with_sets(make_table([f"p{row // 2}" for row in range(40)]),
                      ["train"] * 30 + ["test"] * 10, ("test",))  # fmt: skip
    splits = make_splits(table, protocol, count=2)
    for _, split in splits.groupby("seed"):
        assert sorted(split["name"]) == sorted(table.frame["path"][:30])
    alone = replace(table, frame=table.frame[:30].reset_index(drop=True))
    assert splits.equals(make_splits(alone, protocol, count=2))


def test_prepare_makes_official_where_there_are_sets(make_table: MakeTable) -> None:
    table = make_table([f"p{row}" for row in range(12)])
    assert set(make_all_splits(table, Splits(), {}).splits) == {"grouped", "random"}
    theirs = replace(table, source="AGIQA-3K, https://github.com/lcysyzxdxc/AGIQA-3k-Database")
    assert set(make_all_splits(theirs, Splits(), {}).splits) == {"grouped", "random", "paper"}
    made = make_all_splits(with_sets(table, SETS), Splits(), {})
    assert set(made.splits) == {"grouped", "random", "official"}
    secret = make_all_splits(with_sets(table, SETS, ("test",)), Splits(), {})
    assert "are not public" in secret.absent["official"]
    assert np.isfinite(with_sets(table, SETS).frame["quality"]).all()
