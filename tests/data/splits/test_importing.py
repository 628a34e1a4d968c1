"""Splits of other people become protocols as they were written, or one line says why not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.splits.files import read_protocol, split_digest, write_splits
from agiqa.data.splits.importing import import_splits, read_foreign
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


# Layouts of papers


@pytest.fixture
def pairs(make_table: MakeTable) -> ImagesTable:
    return make_table([f"p{row // 2}" for row in range(24)])


def names(pairs: ImagesTable, start: int, end: int) -> list[str]:
    return list(pairs.frame["path"][start:end])


def write_csv(path: Path, images: list[str], head: str = "name,prompt,mos_quality") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [",".join([name, *["1"] * head.count(",")]) for name in images]
    path.write_text("\n".join([head, *rows]))


def test_numbered_folders_of_train_and_val(pairs: ImagesTable, tmp_path: Path) -> None:
    for fold, cut in ((1, 20), (10, 18)):
        write_csv(tmp_path / "AGIQA" / str(fold) / "train_domain.csv", names(pairs, 0, cut))
        write_csv(tmp_path / "AGIQA" / str(fold) / "val_domain.csv", names(pairs, cut, 24))
    imported = import_splits(tmp_path / "AGIQA", pairs, "ipce", val_share=0.1)
    splits = imported.splits
    counts = {seed: split["side"].value_counts() for seed, split in splits.groupby("seed")}
    assert {seed: sizes.to_dict() for seed, sizes in counts.items()} == {
        1: {"train": 18, "val": 2, "test": 4},  # what is called val is what they report on
        10: {"train": 16, "val": 2, "test": 6},
    }
    prompts = splits["name"].map(dict(zip(pairs.frame["path"], pairs.frame["group"], strict=True)))
    assert (splits["side"].groupby([splits["seed"], prompts]).agg(set).map(len) == 1).all()


def test_validation_does_not_depend_on_the_order_of_the_files(
    pairs: ImagesTable, tmp_path: Path
) -> None:
    made = []
    for name, step in (("a", 1), ("b", -1)):
        write_csv(tmp_path / name / "1" / "train.csv", names(pairs, 0, 20)[::step])
        write_csv(tmp_path / name / "1" / "test.csv", names(pairs, 20, 24)[::step])
        splits = import_splits(tmp_path / name, pairs, "s", val_share=0.1).splits
        made.append(dict(zip(splits["name"], splits["side"], strict=True)))
    assert made[0] == made[1]


def test_json_lists_of_objects_as_m3_agiqa_has_them(pairs: ImagesTable, tmp_path: Path) -> None:
    for side, start, end in (("train", 0, 18), ("test", 18, 24)):
        entries = [
            {"id": str(n), "image": f"/home/someone/images/{name}", "turns": [{}]}
            for n, name in enumerate(names(pairs, start, end))
        ]
        file = tmp_path / f"directly_{side}_cls_quality.jsonl"
        file.write_text(json.dumps(entries))
    imported = import_splits(tmp_path, pairs, "m3", val_share=0.1)
    assert imported.matched == {"path": 0, "name": 24, "stem": 0}
    assert imported.splits["side"].value_counts().to_dict() == {"train": 16, "test": 6, "val": 2}


@pytest.mark.parametrize("text", ["[]", "{}", '["p0_00.png", "p1_02.png"]'])
def test_names_without_sides_are_one_line(pairs: ImagesTable, tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(AgiqaError, match="names and no sides: give a folder with files train"):
        import_splits(tmp_path / "s.json", pairs, "s")


def test_an_object_of_lists_a_list_of_objects_and_an_object_a_line(
    pairs: ImagesTable, tmp_path: Path
) -> None:
    cuts = {"train": (0, 16), "valid": (16, 18), "test": (18, 24)}
    sides = {side: names(pairs, *cut) for side, cut in cuts.items()}
    flat = [{"img_path": name, "split": side} for side, images in sides.items() for name in images]
    lines = "\n".join(map(json.dumps, flat)) + "\n"
    texts = {"a.json": json.dumps(sides), "b.json": json.dumps(flat), "c.jsonl": lines}
    for file, text in texts.items():
        (tmp_path / file).write_text(text)
    one, *others = (import_splits(tmp_path / file, pairs, "s").splits for file in texts)
    assert all(one.equals(other) for other in others)
    assert one["side"].value_counts().to_dict() == {"train": 16, "test": 6, "val": 2}


@pytest.mark.parametrize("first", [0, 1])
def test_index_lists_of_matlab(pairs: ImagesTable, tmp_path: Path, first: int) -> None:
    rows = np.random.default_rng(0).permutation(24) + first
    lists = {"train_idx": rows[:16], "val_idx": rows[16:18, None], "test_idx": rows[None, 18:]}
    savemat(tmp_path / "s.mat", lists)
    splits = import_splits(tmp_path / "s.mat", pairs, "s").splits
    test = set(splits["name"][splits["side"] == "test"])
    assert test == {pairs.frame["path"][row - first] for row in rows[18:]}


def test_a_name_may_be_of_two_columns(make_table: MakeTable, tmp_path: Path) -> None:
    made = make_table(["a", "b", "c", "d"])
    paths = ["Glide/1.png", "DALLE/1.png", "Glide/2.png", "DALLE/2.png"]
    pairs = ImagesTable(**{**vars(made), "frame": made.frame.assign(path=paths)})
    rows = [
        f"{path.replace('/', ',')},{side}"
        for path, side in zip(paths, ("train", "val", "test", "train"), strict=True)
    ]
    (tmp_path / "s.csv").write_text("\n".join(["model,image_name,side", *rows]))
    with pytest.raises(AgiqaError, match="names fit several images"):
        import_splits(tmp_path / "s.csv", pairs, "s")
    splits = import_splits(tmp_path / "s.csv", pairs, "s", name_column="model/image_name").splits
    assert splits["name"].tolist() == paths


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected train.csv and val.csv or test.csv .* found nothing"),
        ({"notes.csv": "name\na"}, "names that say one side .* found notes"),
        ({"train_or_test.csv": "name\na"}, "names that say one side .* found train_or_test"),
        ({"train.csv": "name\na", "trn.csv": "name\na"}, "two files of the side train"),
        ({"train.json": "{"}, "train.json: is not a readable JSON file"),
        ({"train.json": "[3]"}, "train.json: expected a list of names, a list of objects"),
        ({"train.json": '{"train": ["a"], "test": ["b", "c"]}'}, "train.json: expected the names"),
        ({"train.json": "[]", "test.json": "[]"}, "found 0 names and no sides"),
        ({"train.jsonl": '{"name": "a"}\n{"name"'}, "train.jsonl: is not a readable JSON file"),
        ({"train.csv": "name\nz9.png", "test.csv": "name\ny9.png"}, "2 of 2 names are of no image"),
    ],
)
def test_a_folder_that_is_no_split_is_one_line(
    pairs: ImagesTable, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(AgiqaError, match=message) as raised:
        import_splits(folder, pairs, "s")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": [1, 2], "test": [3, 99]}, "numbers of 24 rows .* found 1 to 99"),
        ({"train": [0, 24], "test": [3]}, "found 0 to 24"),  # from 0 or from 1?
        ({"train": [2, 3], "test": [4]}, "found 2 to 4"),
        ({"train": [0, 3], "test": [40]}, "names row 40, the data set has 24"),
        ({"train": [1.5, 24], "test": [4]}, "expected one list of whole numbers .* train, 1 x 2"),
        ({"train": np.ones((2, 2)), "test": [24]}, "train, 2 x 2: save it as a CSV"),
        ({"first": [1], "second": [24]}, "names that say one side .* found first"),
        ({"train": "abc", "test": [24]}, "train, char|train, <U1"),
    ],
)
def test_index_lists_of_another_data_set_are_one_line(
    pairs: ImagesTable, tmp_path: Path, lists: dict[str, object], message: str
) -> None:
    savemat(tmp_path / "s.mat", lists)
    with pytest.raises(AgiqaError, match=message) as raised:
        read_foreign(tmp_path / "s.mat", list(pairs.frame["path"]))
    assert "\n" not in str(raised.value)
