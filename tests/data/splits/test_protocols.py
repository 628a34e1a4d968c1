import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Splits
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.splits.files import (
    Leak,
    count_leaks,
    leaks,
    make_all_splits,
    read_splits,
    side_rows,
    small_test_sides,
    write_splits,
)
from agiqa.data.splits.protocols import SIDES, default_protocol, has_official, make_splits

MakeTable = Callable[..., ImagesTable]

# Sizes of the groups, and pairs of rows that hold the same file.
many_groups = st.lists(st.integers(1, 6), min_size=3, max_size=30)
twins = st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), max_size=8)


def grouped_table(
    make_table: MakeTable, sizes: list[int], same: list[tuple[int, int]]
) -> ImagesTable:
    groups = [f"prompt {number}" for number, size in enumerate(sizes) for _ in range(size)]
    files = [f"{row:064x}" for row in range(len(groups))]
    for first, second in same:
        files[first % len(files)] = files[second % len(files)]
    return make_table(groups, files)


def components(table: ImagesTable) -> int:
    """How many sets of rows are tied by a group or a file: each row merges what it touches."""
    ties: list[set[str]] = []
    for group, file in zip(table.frame["group"], table.frame["image_id"], strict=True):
        touched = [tie for tie in ties if tie & {group, file}]
        ties = [tie for tie in ties if tie not in touched] + [{group, file}.union(*touched)]
    return len(ties)


@given(sizes=many_groups, same=twins, seed=st.integers(0, 10_000))
def test_grouped_never_parts_a_group_or_a_file(
    make_table: MakeTable, sizes: list[int], same: list[tuple[int, int]], seed: int
) -> None:
    table = grouped_table(make_table, sizes, same)
    assume(components(table) >= 3)
    splits = make_splits(table, "grouped", count=3, seed=seed)
    group = dict(zip(table.frame["path"], table.frame["group"], strict=True))
    for _, split in splits.groupby("seed"):
        assert sorted(split["name"]) == sorted(table.frame["path"])  # each on exactly one side
        assert set(split["side"]) == set(SIDES)
        assert (split["side"].groupby(split["name"].map(group)).nunique() == 1).all()
        assert (split["side"].groupby(split["image_id"]).nunique() == 1).all()
    assert all((leak.same_group, leak.same_file) == (0, 0) for leak in leaks(splits, table))


@given(sizes=st.lists(st.integers(1, 12), min_size=120, max_size=200), seed=st.integers(0, 10_000))
def test_grouped_sizes_are_within_one_group_of_the_ratio(
    make_table: MakeTable, sizes: list[int], seed: int
) -> None:
    splits = make_splits(grouped_table(make_table, sizes, []), "grouped", count=1, seed=seed)
    for side, share in zip(SIDES, (0.7, 0.1, 0.2), strict=True):
        assert abs((splits["side"] == side).sum() - share * sum(sizes)) <= max(sizes)


@given(count=st.integers(3, 100), seed=st.integers(0, 10_000))
def test_random_puts_each_image_on_one_side(make_table: MakeTable, count: int, seed: int) -> None:
    table = make_table([""] * count)
    splits = make_splits(table, "random", count=2, seed=seed)
    for _, split in splits.groupby("seed"):
        assert sorted(split["name"]) == sorted(table.frame["path"])
        for side, share in zip(SIDES, (0.7, 0.1, 0.2), strict=True):
            size = (split["side"] == side).sum()
            assert size >= 1
            assert abs(size - share * count) <= 1.5


@pytest.mark.parametrize("protocol", ["grouped", "random"])
def test_seeds(make_table: MakeTable, protocol: str) -> None:
    table = make_table([f"prompt {row // 4}" for row in range(120)])
    splits = make_splits(table, protocol, count=10, seed=5)
    assert splits["seed"].unique().tolist() == list(range(5, 15))
    assert splits.equals(make_splits(table, protocol, count=10, seed=5))
    assert (
        splits[splits["seed"] == 9]
        .reset_index(drop=True)
        .equals(make_splits(table, protocol, count=1, seed=9))
    )
    tested = {tuple(sorted(s[s["side"] == "test"]["name"])) for _, s in splits.groupby("seed")}
    assert len(tested) == 10
    assert set(splits["protocol"]) == {protocol}


def test_no_validation_side(make_table: MakeTable) -> None:
    table = make_table([f"prompt {row // 2}" for row in range(20)])
    for protocol in ("grouped", "random"):
        splits = make_splits(table, protocol, count=1, ratio=(0.8, 0.0, 0.2))
        assert splits["side"].value_counts().to_dict() == {"train": 16, "test": 4}


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        *[(3, {"ratio": ratio}, "expected three shares")
          for ratio in ((0.7, 0.2, 0.2), (1.2, -0.4, 0.2), (0.0, 0.5, 0.5), (1, 0, 0))],
        (3, {"protocol": "grupped"}, "'grupped': choose one of grouped, random, paper"),
        (2, {}, "2 images with a score, too few"),
        (3, {"count": 0}, "expected at least 1"),
    ],
)  # fmt: skip
def test_splits_that_cannot_be(
    make_table: MakeTable, images: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(AgiqaError, match=message):
        make_splits(make_table(["a", "b", "c"][:images]), **({"protocol": "random"} | options))


@pytest.mark.parametrize(
    ("groups", "files", "found"),
    [
        (["a", "a", "b", "b"], None, "tiny has 2: use --protocol random"),
        (["", "", "", ""], ["1", "1", "2", "2"], "has 0 and 2 distinct files: use --protocol"),
        (["a", "b", "c", "c"], ["1", "1", "2", "3"], "has 3, which byte-identical files join to 2"),
    ],
)
def test_too_few_groups_says_what_to_do(
    make_table: MakeTable, groups: list[str], files: list[str] | None, found: str
) -> None:
    with pytest.raises(AgiqaError, match=f"needs at least 3 groups .*{found}"):
        make_splits(make_table(groups, files), "grouped")


@given(count=st.integers(5, 100), same=twins, seed=st.integers(0, 10_000))
def test_grouped_without_any_group_keeps_files_together(
    make_table: MakeTable, count: int, same: list[tuple[int, int]], seed: int
) -> None:
    files = grouped_table(make_table, [1] * count, same).frame["image_id"].tolist()
    assume(len(set(files)) >= 3)
    splits = make_splits(make_table([""] * count, files), "grouped", count=2, seed=seed)
    for _, split in splits.groupby("seed"):
        assert len(split) == count
        assert set(split["side"]) == set(SIDES)
        assert (split["side"].groupby(split["image_id"]).nunique() == 1).all()


@pytest.mark.parametrize(
    ("groups", "protocol"),
    [(["a", "b", "c"], "grouped"), (["a", "b", "a"], "random"), (["", "", ""], "random")],
)
def test_default_protocol(make_table: MakeTable, groups: list[str], protocol: str) -> None:
    assert default_protocol(make_table(groups)) == protocol


def test_leaks_are_counted(make_table: MakeTable) -> None:
    table = make_table(
        ["a", "a", "b", "", "", "c", "a", "b", "c"], ["1", "2", "3", "4", "4", "6", "7", "3", "9"]
    )
    splits = make_splits(table, "random", count=1)
    side = dict(
        zip(
            table.frame["path"],
            ["train", "test", "train", "train", "test", "val", "test", "val", "test"],
            strict=True,
        )
    )
    splits["side"] = splits["name"].map(side)
    # Tests: a (in train), no group but the same file, a (in train), c (only in val).
    assert leaks(splits, table) == [
        Leak("random", 0, 3, 2, 4, same_group=3, same_file=1, same_prompt=3)
    ]


def test_files_can_be_read_and_come_back(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table([f"prompt {row // 2}" for row in range(20)])
    splits = make_splits(table, "grouped", count=2)
    write_splits(splits, tmp_path / "splits" / "grouped.csv")
    lines = (tmp_path / "splits" / "grouped.csv").read_text().splitlines()
    assert lines[0] == "name,image_id,seed,side,protocol"
    assert len(lines) == 41
    assert read_splits(tmp_path / "splits" / "grouped.csv").equals(splits)
    assert count_leaks(table, tmp_path) == leaks(splits, table)
    assert '"same_group": 0' in (tmp_path / "splits" / "leaks.json").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",test,", ",exam,", "side must be one of train, val, test; found exam"),
        ("side", "part", "expected the column side; found name, image_id, seed, part, protocol"),
        (",0,test", ",zero,test", "seed must be a whole number"),
        ("0001.png", "0002.png", r"1 images stand twice in one split \(0002.png\)"),
    ],
)
def test_damaged_files(
    make_table: MakeTable, tmp_path: Path, old: str, new: str, message: str
) -> None:
    write_splits(make_splits(make_table(["a", "b", "c"]), "grouped", count=1), tmp_path / "s.csv")
    text = (tmp_path / "s.csv").read_text()
    (tmp_path / "s.csv").write_text(text.replace(old, new))
    with pytest.raises(AgiqaError, match=message):
        read_splits(tmp_path / "s.csv")


def test_rows_of_the_sides(make_table: MakeTable) -> None:
    table = make_table([f"prompt {row // 2}" for row in range(40)])
    splits = make_splits(table, "random", count=3, seed=4)
    by_seed = side_rows(splits, table)
    assert list(by_seed) == [4, 5, 6]
    for seed, sides in by_seed.items():
        assert sorted(np.concatenate(list(sides.values()))) == list(range(40))
        expected = splits[(splits["seed"] == seed) & (splits["side"] == "test")]["name"].tolist()
        assert table.frame["path"].iloc[sides["test"]].tolist() == expected


def test_splits_of_other_data_are_refused(make_table: MakeTable) -> None:
    splits = make_splits(make_table(["a", "b", "c", "d"]), "random", count=1)
    with pytest.raises(AgiqaError, match=r"1 images that tiny has not.*0003.png.*agiqa prepare"):
        side_rows(splits, make_table(["a", "b", "c"]))
    with pytest.raises(AgiqaError, match="4 images that tiny has not, or has otherwise"):
        side_rows(splits, make_table(["a", "b", "c", "d"], ["5", "6", "7", "8"]))


@pytest.mark.agiqa3k
def test_paper_split_is_the_authors(agiqa3k: ImagesTable) -> None:
    splits = make_splits(agiqa3k, "paper")
    expected = {
        "train": (2087, "486dcb57e7054a9b1c24f6221e9988b543a9a3fa29be807b431f9a70114fb2db"),
        "val": (298, "97c3b841229c3384a5aa7e81c5a64d20453428830c3b77b379086c013d0f6105"),
        "test": (597, "360e6c1753fc316ee9006d0f0eb22990a85e33017fb57008d7de6455013a0cee"),
    }
    for side, (size, sha256) in expected.items():
        names = splits[splits["side"] == side]["name"].tolist()
        assert len(names) == size
        assert hashlib.sha256("\n".join(names).encode()).hexdigest() == sha256
    assert splits[splits["side"] == "test"]["name"].iloc[0] == "sd1.5_lowcorr_012.jpg"


@pytest.mark.agiqa3k
@pytest.mark.parametrize("protocol", ["grouped", "random", "paper"])
def test_leaks_of_the_real_one(agiqa3k: ImagesTable, protocol: str) -> None:
    for leak in leaks(make_splits(agiqa3k, protocol), agiqa3k):
        assert leak.train + leak.val + leak.test == 2982
        if protocol == "grouped":
            assert (leak.same_group, leak.same_file) == (0, 0)
            assert leak.train == pytest.approx(0.7 * 2982, abs=40)
        else:
            assert leak.same_group == leak.test


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            "aabbccddee",
            r"^tiny: a test side of protocol grouped has 2 images of 1 prompt, too few for results "
            r"\(correlations need 3 images, figures after a fitted curve 30, 95 % intervals 5 prom",
        ),
        ("abcde" * 20, r"has 20 images of 1 prompt, .*\(figures after a fitted curve 30, 95 %"),
        ([f"{n % 40}" for n in range(200)], ""),
    ],
)
def test_few_images_and_prompts_are_told(
    make_table: Callable[..., ImagesTable], groups: Sequence[str], message: str
) -> None:
    table = make_table(list(groups))
    warning = small_test_sides(make_all_splits(table, Splits(), {})[0], table)
    assert re.search(message, warning) if message else warning == ""


def test_fewer_images_than_a_split_needs_are_refused(
    make_table: Callable[..., ImagesTable],
) -> None:
    for count in (1, 2):
        with pytest.raises(AgiqaError, match=rf"tiny has {count} images with a score, too few to "):
            make_all_splits(make_table(["p"] * count), Splits(), {})
    theirs = make_table(["p", "q", "r"])
    theirs = replace(theirs, source="SPAQ, somewhere")
    by_protocol, absent = make_all_splits(theirs, Splits(), {})
    assert sorted(by_protocol) == ["grouped", "random"]
    assert "paper leaves no image to val: tiny has 3 images" in absent["paper"]


# Official sides


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
    assert set(make_all_splits(table, Splits(), {})[0]) == {"grouped", "random"}
    theirs = replace(table, source="AGIQA-3K, https://github.com/lcysyzxdxc/AGIQA-3k-Database")
    assert set(make_all_splits(theirs, Splits(), {})[0]) == {"grouped", "random", "paper"}
    made, _ = make_all_splits(with_sets(table, SETS), Splits(), {})
    assert set(made) == {"grouped", "random", "official"}
    _, absent = make_all_splits(with_sets(table, SETS, ("test",)), Splits(), {})
    assert "are not public" in absent["official"]
    assert np.isfinite(with_sets(table, SETS).frame["quality"]).all()
