"""Splits in the layouts that papers release them in, each read as somebody else wrote it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.splits.foreign_files import read_foreign
from agiqa.data.splits.importing import import_splits

MakeTable = Callable[..., ImagesTable]


@pytest.fixture
def table(make_table: MakeTable) -> ImagesTable:
    return make_table([f"p{row // 2}" for row in range(24)])


def names(table: ImagesTable, start: int, end: int) -> list[str]:
    return list(table.frame["path"][start:end])


def write_csv(path: Path, images: list[str], head: str = "name,prompt,mos_quality") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [",".join([name, *["1"] * head.count(",")]) for name in images]
    path.write_text("\n".join([head, *rows]))


def test_numbered_folders_of_train_and_val(table: ImagesTable, tmp_path: Path) -> None:
    for fold, cut in ((1, 20), (10, 18)):
        write_csv(tmp_path / "AGIQA" / str(fold) / "train_domain.csv", names(table, 0, cut))
        write_csv(tmp_path / "AGIQA" / str(fold) / "val_domain.csv", names(table, cut, 24))
    imported = import_splits(tmp_path / "AGIQA", table, "ipce", val_share=0.1)
    splits = imported.splits
    assert splits.groupby("seed")["side"].value_counts().unstack().to_dict("index") == {
        1: {"train": 18, "val": 2, "test": 4},  # what is called val is what they report on
        10: {"train": 16, "val": 2, "test": 6},
    }
    prompts = splits["name"].map(dict(zip(table.frame["path"], table.frame["group"], strict=True)))
    assert (splits["side"].groupby([splits["seed"], prompts]).nunique() == 1).all()


def test_validation_does_not_depend_on_the_order_of_the_files(
    table: ImagesTable, tmp_path: Path
) -> None:
    made = []
    for name, step in (("a", 1), ("b", -1)):
        write_csv(tmp_path / name / "1" / "train.csv", names(table, 0, 20)[::step])
        write_csv(tmp_path / name / "1" / "test.csv", names(table, 20, 24)[::step])
        splits = import_splits(tmp_path / name, table, "s", val_share=0.1).splits
        made.append(dict(zip(splits["name"], splits["side"], strict=True)))
    assert made[0] == made[1]


def test_json_lists_of_objects_as_m3_agiqa_has_them(table: ImagesTable, tmp_path: Path) -> None:
    for side, start, end in (("train", 0, 18), ("test", 18, 24)):
        entries = [
            {"id": str(n), "image": f"/home/someone/images/{name}", "turns": [{}]}
            for n, name in enumerate(names(table, start, end))
        ]
        file = tmp_path / f"directly_{side}_cls_quality.jsonl"
        file.write_text(json.dumps(entries))
    imported = import_splits(tmp_path, table, "m3", val_share=0.1)
    assert imported.matched == {"path": 0, "name": 24, "stem": 0}
    assert imported.splits["side"].value_counts().to_dict() == {"train": 16, "test": 6, "val": 2}


@pytest.mark.parametrize("text", ["[]", "{}", '["p0_00.png", "p1_02.png"]'])
def test_names_without_sides_are_one_line(table: ImagesTable, tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(AgiqaError, match="names and no sides: give a folder with files train"):
        import_splits(tmp_path / "s.json", table, "s")


def test_an_object_of_lists_a_list_of_objects_and_an_object_a_line(
    table: ImagesTable, tmp_path: Path
) -> None:
    cuts = {"train": (0, 16), "valid": (16, 18), "test": (18, 24)}
    sides = {side: names(table, *cut) for side, cut in cuts.items()}
    flat = [{"img_path": name, "split": side} for side, images in sides.items() for name in images]
    lines = "\n".join(map(json.dumps, flat)) + "\n"
    texts = {"a.json": json.dumps(sides), "b.json": json.dumps(flat), "c.jsonl": lines}
    for file, text in texts.items():
        (tmp_path / file).write_text(text)
    one, *others = (import_splits(tmp_path / file, table, "s").splits for file in texts)
    assert all(one.equals(other) for other in others)
    assert one["side"].value_counts().to_dict() == {"train": 16, "test": 6, "val": 2}


@pytest.mark.parametrize("first", [0, 1])
def test_index_lists_of_matlab(table: ImagesTable, tmp_path: Path, first: int) -> None:
    rows = np.random.default_rng(0).permutation(24) + first
    lists = {"train_idx": rows[:16], "val_idx": rows[16:18, None], "test_idx": rows[None, 18:]}
    savemat(tmp_path / "s.mat", lists)
    splits = import_splits(tmp_path / "s.mat", table, "s").splits
    test = set(splits["name"][splits["side"] == "test"])
    assert test == {table.frame["path"][row - first] for row in rows[18:]}


def test_a_name_may_be_of_two_columns(make_table: MakeTable, tmp_path: Path) -> None:
    made = make_table(["a", "b", "c", "d"])
    paths = ["Glide/1.png", "DALLE/1.png", "Glide/2.png", "DALLE/2.png"]
    table = ImagesTable(**{**vars(made), "frame": made.frame.assign(path=paths)})
    rows = [
        f"{path.replace('/', ',')},{side}"
        for path, side in zip(paths, ("train", "val", "test", "train"), strict=True)
    ]
    (tmp_path / "s.csv").write_text("\n".join(["model,image_name,side", *rows]))
    with pytest.raises(AgiqaError, match="names fit several images"):
        import_splits(tmp_path / "s.csv", table, "s")
    splits = import_splits(tmp_path / "s.csv", table, "s", name_column="model/image_name").splits
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
    table: ImagesTable, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(AgiqaError, match=message) as raised:
        import_splits(folder, table, "s")
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
    table: ImagesTable, tmp_path: Path, lists: dict[str, object], message: str
) -> None:
    savemat(tmp_path / "s.mat", lists)
    with pytest.raises(AgiqaError, match=message) as raised:
        read_foreign(tmp_path / "s.mat", list(table.frame["path"]))
    assert "\n" not in str(raised.value)
