from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.splits.files import read_protocol, split_digest, write_splits
from agiqa.data.splits.importing import import_splits
from agiqa.data.splits.protocols import make_splits

MakeTable = Callable[..., ImagesTable]
SIDES_OF_EIGHT = ("train",) * 5 + ("val", "test", "test")
PATHS = ["a/1.png", "a/2.png", "b/1.png", "b/3.png", "sd1.5_x_000.jpg", "c.png", "c.jpg", "d.png"]


@pytest.fixture
def table(make_table: MakeTable) -> ImagesTable:
    made = make_table([f"p{row // 2}" for row in range(len(PATHS))])
    return ImagesTable(**{**vars(made), "frame": made.frame.assign(path=PATHS)})


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def written(text: str) -> Path:
        path = tmp_path / "foreign.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return written


Write = Callable[[str], Path]


def sides(splits: pd.DataFrame) -> dict[str, str]:
    return dict(zip(splits["name"], splits["side"], strict=True))


def test_names_fit_by_path_end_or_stem(table: ImagesTable, write: Write) -> None:
    file = write(
        "Image Name,Split\n"
        "a/1.png,Training\n"  # a path
        "data\\b\\1.png,train\n"  # its end, as Windows writes it
        "2.png,TRAIN\n"  # a base name
        "sd1.5_x_000,valid\n"  # a stem with a dot
        "3.webp,Validation\n"  # saved in another format
        "./c.png,testing\n"
        "c.jpg,test\n"
    )
    imported = import_splits(file, table, "smith2024")
    assert sides(imported.splits) == {
        "a/1.png": "train", "b/1.png": "train", "a/2.png": "train", "sd1.5_x_000.jpg": "val",
        "b/3.png": "val", "c.png": "test", "c.jpg": "test",
    }  # fmt: skip
    assert imported.matched == {"path": 3, "name": 2, "stem": 2}
    assert imported.left_out == 1  # d.png
    assert set(imported.splits["seed"]) == {0}
    assert set(imported.splits["protocol"]) == {"smith2024"}


def test_seeds_and_columns_of_other_names(table: ImagesTable, write: Write) -> None:
    rows = [f"{path},{fold},{side}" for fold in (3, 4)
            for path, side in zip(PATHS[:3], ("train", "dev", "test"), strict=True)]  # fmt: skip
    file = write("\n".join(["picture,fold,purpose", *rows]))
    splits = import_splits(
        file, table, "s", name_column="picture", side_column="Purpose", seed_column="fold"
    ).splits
    assert splits["seed"].tolist() == [3, 3, 3, 4, 4, 4]


def test_a_column_split_may_count_beside_one_of_sets(table: ImagesTable, write: Write) -> None:
    file = write("name,set,split\na/1.png,train,1\na/2.png,val,1\nb/1.png,test,1\n")
    assert set(import_splits(file, table, "s").splits["side"]) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,side\nz.png,train\n",
            r"1 of 1 names are of no image of tiny: z.png; .* a/1.png: import these splits into",
        ),
        ("name,side\n1.png,train\n", r"1 names fit several images of tiny \(1.png\)"),
        ("name,side\nc,train\n", r"1 names fit several images of tiny \(c\): give their paths"),
        ("name,side\n,train\n", "1 of 1 names are of no image"),
        ("name,side\na/1.png,exam\n", "column side must hold train, val or test .* found 'exam'"),
        ("name,side\na/1.png,train\na/1.png,test\n", r"1 images stand twice .*\(a/1.png\)"),
        ("name,side,seed\na/1.png,train,one\n", "column seed must hold a whole number .*'one'"),
        (
            "name,side\na/1.png,train\n",
            r"split 0 has no val or test side \(found train 1\): add their images, or import the",
        ),
        ("name,side\n", "found 0 names and no sides: give a folder with files train"),
        (
            "name,side\na/1.png,train\nz.png,test\n",
            "1 of 2 names are of .*: remove these rows, or prepare tiny with these images",
        ),
        (
            "name,side\na/1.png,train\na/2.png,test\n",
            r"no val side \(found train 1, test 1\): take a share of train for it \(--val-share",
        ),
        (
            "name,side,image_id\na/1.png,train,77\n",
            "1 images are other files here .*a/1.png.*; prepare the files",
        ),
        ("", "is not a readable CSV"),
        ("title,side\na,train\n", r"of images \(name, path, .*found title, side: .* --name-column"),
        ("name,purpose\na,train\n", r"of sides \(side, set, .*: name it with --side-column"),
        ("Name,name,side\na,b,train\n", "'Name' and 'name' may both .* with --name-column"),
        ("name,side ,Side\na,train,test\n", "'side ' and 'Side' may both .* with --side-column"),
        ("name;side\na;train\n", "a column of images .*: it is separated by semicolons"),
    ],
)
def test_what_does_not_fit_is_one_line(
    table: ImagesTable, write: Write, text: str, message: str
) -> None:
    with pytest.raises(AgiqaError, match=message) as raised:
        import_splits(write(text), table, "s")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("grouped", "is agiqa's own"),
        ("cross", "is agiqa's own"),
        ("../up", "expected a plain name"),
        ("", "expected a plain name"),
    ],
)
def test_names_that_are_taken_or_no_names(
    table: ImagesTable, write: Write, name: str, message: str
) -> None:
    with pytest.raises(AgiqaError, match=message):
        import_splits(write("name,side\na/1.png,train\n"), table, name)


def test_images_without_a_score_are_refused(table: ImagesTable, write: Write) -> None:
    secret = table.frame.assign(quality=table.frame["quality"].where(table.frame.index != 1))
    without = ImagesTable(**{**vars(table), "frame": secret})
    file = write("name,side\na/1.png,train\na/2.png,val\nb/1.png,test\n")
    with pytest.raises(AgiqaError, match=r"1 images have no score in tiny \(a/2.png\)"):
        import_splits(file, without, "s")


def test_validation_is_taken_from_train_by_group(make_table: MakeTable, write: Write) -> None:
    table = make_table([f"p{row // 4}" for row in range(80)])
    rows = [f"{path},{'train' if row < 60 else 'test'}"
            for row, path in enumerate(table.frame["path"])]  # fmt: skip
    imported = import_splits(write("\n".join(["name,set", *rows])), table, "s", val_share=0.2)
    side = sides(imported.splits)
    assert imported.val_from_train == 12
    assert set(range(60, 80)) == {
        row for row, path in enumerate(table.frame["path"]) if side[path] == "test"
    }
    group = imported.splits["name"].map(dict(zip(table.frame["path"], table.frame["group"],
                                                 strict=True)))  # fmt: skip
    assert (imported.splits["side"].groupby(group).agg(set).map(len) == 1).all()


def test_validation_is_taken_where_a_split_has_none(table: ImagesTable, write: Write) -> None:
    """Split 1 names its validation side, split 2 does not, split 3 has no test side."""
    named = [f"{path},1,{side}" for path, side in zip(PATHS, SIDES_OF_EIGHT, strict=True)]
    rest = [row.replace(",1,", ",2,").replace(",val", ",train") for row in named]
    file = write("\n".join(["name,seed,side", *named, *rest, f"{PATHS[0]},3,train"]))
    with pytest.raises(AgiqaError, match=r"split 2 has no val side .*--val-share"):
        import_splits(file, table, "s", only=(1, 2))
    with pytest.raises(
        AgiqaError, match=r"split 3 has no val or test side .*other splits alone .--only-spl"
    ):
        import_splits(file, table, "s", val_share=0.2)
    with pytest.raises(AgiqaError, match="splits numbered 7 to 9, found 1, 2, 3"):
        import_splits(file, table, "s", only=(7, 9))
    imported = import_splits(file, table, "s", val_share=0.2, only=(1, 2))
    first, second = (split for _, split in imported.splits.groupby("seed"))
    assert list(first["side"]) == list(SIDES_OF_EIGHT)
    assert set(second["side"]) == {"train", "val", "test"}
    assert imported.val_from_train == (second["side"] == "val").sum()


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 6), min_size=3, max_size=30), seed=st.integers(0, 1000))
def test_what_was_exported_comes_back(
    make_table: MakeTable, tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int
) -> None:
    table = make_table([f"p{n}" for n, size in enumerate(sizes) for _ in range(size)])
    splits = make_splits(table, "grouped", count=2, seed=seed)
    folder = tmp_path_factory.getbasetemp() / "back"
    folder.mkdir(exist_ok=True)
    splits[["name", "side", "seed", "image_id"]].sample(frac=1, random_state=seed).to_csv(
        folder / "given.csv", index=False
    )
    back = import_splits(folder / "given.csv", table, "theirs").splits
    assert split_digest(back) == split_digest(splits)
    write_splits(back, folder / "splits" / "theirs.csv")
    read = read_protocol(folder, table, "theirs")
    for _, split in read.groupby("seed"):
        assert sorted(split["name"]) == sorted(table.frame["path"])


def test_a_file_of_another_protocol_is_refused(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table(["a", "b", "c", "d"])
    write_splits(make_splits(table, "random", count=1), tmp_path / "splits" / "mine.csv")
    with pytest.raises(AgiqaError, match="rows of the protocol mine alone, found random"):
        read_protocol(tmp_path, table, "mine")
    with pytest.raises(AgiqaError, match=r"there are: mine. `agiqa splits import tiny FILE"):
        read_protocol(tmp_path, table, "yours")
    with pytest.raises(AgiqaError, match="tiny has no official sets"):
        read_protocol(tmp_path, table, "official")
    with pytest.raises(AgiqaError, match=r"own data sets .AGIQA-3K, .*SPAQ.: fit tiny with --prot"):
        read_protocol(tmp_path, table, "paper")
    theirs = ImagesTable(**{**vars(table), "source": "SPAQ, https://github.com/h4nwei/SPAQ"})
    with pytest.raises(AgiqaError, match="Run `agiqa prepare tiny`"):
        read_protocol(tmp_path, theirs, "paper")


def test_the_digest_knows_sides_and_not_the_order(make_table: MakeTable) -> None:
    splits = make_splits(make_table([f"p{row}" for row in range(12)]), "random", count=1)
    assert split_digest(splits) == split_digest(splits.iloc[::-1])
    moved = splits.assign(side=splits["side"].where(splits.index != 0, "test"))
    assert split_digest(moved) != split_digest(splits)


def test_a_column_is_taken_by_its_exact_name(
    tmp_path: Path, make_table: Callable[..., ImagesTable]
) -> None:
    rows = "".join(f"x,000{n},{side}\n" for n, side in enumerate(("train", "val", "test")))
    (tmp_path / "s.csv").write_text("Name,name,side\n" + rows, "utf-8")
    table = make_table(["p", "q", "r"])
    imported = import_splits(tmp_path / "s.csv", table, "smith", name_column="name")
    assert imported.matched == {"path": 0, "name": 0, "stem": 3}
