"""Images chosen by their scores: which ones, from which tables, and where they end up."""

import io
import os
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.runs.select import Choice, read_scores, select
from kit.command import agiqa

TABLE = pd.DataFrame(
    {
        "image": ["x/a.png", "x/b.png", "y/c.png", "y/d.png", "y/e.png"],
        "score": [1.0, 4.0, 3.0, 3.0, 2.0],
        "prompt": ["cat", "cat", "dog", "dog", "dog"],
    }
)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(best=2), "b c"),
        (Choice(best=1, group_by="prompt"), "b c"),  # of equal ones the first
        (Choice(worst=1, group_by="folder"), "e a"),
        (Choice(above=3), "b c d"),
        (Choice(below=3), "e a"),
        (Choice(below=4, best=2, group_by="prompt"), "c d a"),
        (Choice(worst_share=0.4), "e a"),
        (Choice(worst_share=0.01), "a"),  # at least one
        (Choice(above=5), ""),
    ],
)
def test_which_are_chosen(choice: Choice, expected: str) -> None:
    assert [Path(name).stem for name in select(TABLE, choice)["image"]] == expected.split()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
def test_every_kind_of_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scores.{suffix}"
    match suffix:
        case "parquet":
            pytest.importorskip("pyarrow", reason="needs the extra parquet")
            TABLE.to_parquet(path)
        case "jsonl":
            TABLE.to_json(path, orient="records", lines=True)
        case _:
            TABLE.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    chosen = select(read_scores(path), Choice(best=1, group_by="prompt"))
    assert list(chosen["image"]) == ["x/b.png", "y/c.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.csv", "image,mos\na,1\n", "expected the column score; found image, mos"),
        ("s.csv", "image,score\na,good\n", "column score must hold a number in every row"),
        ("s.csv", "image,score\n", "expected scores of images, found none"),
        ("s.jsonl", "{", "expected scores, found another or a damaged file"),
        ("s.jsonl", "[1]\n3", "expected scores, found another or a damaged file"),
        ("s.parquet", "PAR1", "expected scores, found another or a damaged file"),
        ("s.xlsx", "", r"expected scores in \.csv"),
    ],
)
def test_what_is_no_table_of_scores(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(AgiqaError, match=message):
        read_scores(tmp_path / name)


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(AgiqaError, match="a column model to group by, found image, score, prompt"):
        select(TABLE, Choice(best=1, group_by="model"))


def test_a_column_in_which_nothing_stands() -> None:
    with pytest.raises(AgiqaError, match="the column prompt to group by is empty"):
        select(TABLE.assign(prompt=""), Choice(best=1, group_by="prompt"))


def picture(name: str) -> bytes:
    """A small PNG, another for each name."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (sum(name.encode()) % 256, 0, 0)).save(file, "png")
    return file.getvalue()


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A table of three files, one called as a formula is, and of a member of a tar."""
    for name in ("x/a.png", "y/a.png", "=b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(name))
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        member = tarfile.TarInfo("../c.png")
        member.size = len(picture("tar"))
        archive.addfile(member, io.BytesIO(picture("tar")))
    rows = ["x/a.png,4", "y/a.png,3", "'=b.png,2", "s.tar:../c.png,1"]
    (tmp_path / "scores.csv").write_text("\n".join(["image,score", *rows]))
    return tmp_path


def run(folder: Path, *arguments: str) -> Result:
    here = Path.cwd()
    os.chdir(folder)
    try:
        return agiqa("select", "scores.csv", *arguments, status=None)
    finally:
        os.chdir(here)


def test_names_rows_copies_and_links(scored: Path) -> None:
    names = ["x/a.png", "y/a.png", "=b.png", "s.tar:../c.png"]
    assert run(scored, "--above", "1").stdout.splitlines() == names
    assert run(scored, "--best", "3", "-o", "best.csv").exit_code == 0
    assert list(read_scores(scored / "best.csv")["image"]) == names[:3]
    for _ in range(2):  # what is there stays
        assert "4 images in out" in run(scored, "--best", "4", "--copy-to", "out").stderr
    contents = {path.name: path.read_bytes() for path in (scored / "out").iterdir()}
    assert contents == {
        "1-a.png": picture("x/a.png"),
        "2-a.png": picture("y/a.png"),
        "=b.png": picture("=b.png"),
        "c.png": picture("tar"),
    }
    fewer = run(scored, "--worst", "2", "--copy-to", "out").stderr
    assert "2 images, beside 2 others in out" in fewer
    assert run(scored, "--best", "1", "--link-to", "links").exit_code == 0
    assert (scored / "links/a.png").resolve() == scored / "x/a.png"


def test_what_cannot_be_put_there(scored: Path) -> None:
    (scored / "out").mkdir()
    (scored / "out/a.png").write_bytes(b"another")
    assert "another file is there" in run(scored, "--best", "1", "--copy-to", "out").stderr
    assert (scored / "out/a.png").read_bytes() == b"another"
    assert "copy it (--copy-to)" in run(scored, "--worst", "1", "--link-to", "links").stderr
    (scored / "x/a.png").unlink()
    gone = run(scored, "--best", "2", "--copy-to", "new").stderr
    assert "1 of 2 images cannot be had, the others are in new: x/a.png is no longer there" in gone
    assert (scored / "new/2-a.png").read_bytes() == picture("y/a.png")


def test_a_copy_that_a_stop_cuts_short_is_made_again(
    scored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:9])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copy2", cut)
        assert run(scored, "--best", "1", "--copy-to", "out").exit_code != 0
    assert not (scored / "out/a.png").exists()
    assert "1 image in out" in run(scored, "--best", "1", "--copy-to", "out").stderr
    assert [path.name for path in (scored / "out").iterdir()] == ["a.png"]
    assert (scored / "out/a.png").read_bytes() == picture("x/a.png")


def test_a_table_of_others_brings_images_alone(scored: Path) -> None:
    """Rows of a Parquet file of bytes are named by their number; a table may name any file."""
    (scored / "secret").write_text("root:x:0:0")
    (scored / "7").write_bytes(picture("7"))
    (scored / "list.txt").write_text("x/a.png")
    (scored / "scores.csv").write_text("image,score\n7,4\nsecret,3\nlist.txt,2\n")
    line = run(scored, "--best", "3", "--copy-to", "out").stderr
    assert "2 of 3 images cannot be had, the others are in out: secret is not an image" in line
    assert [path.name for path in (scored / "out").iterdir()] == ["7.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected --best"),
        (["--worst-share", "110%"], "110%"),
        (["--worst-share", "1"], "expected a share such as 1% or 0.01, found '1'"),
        (["--best", "1", "--copy-to", "o", "--link-to", "./o"], "expected two folders, found one"),
        (["--best", "1", "--copy-to", "x/a.png/o"], "cannot write there (Not a directory)"),
        (["--above", "nan"], "--above: expected a number, found nan"),
        (["--best", "1", "-o", "best.txt"], "expected a name that ends in .csv"),
        (["--best", "1", "-o", "x/../scores.csv"], "is the table of scores itself"),
        (["--best", "1", "-o", "new/best.csv"], "expected the folder new, found none"),
        (["--best", "1", "-o", "-"], "a dash is no name here: leave the option out to print"),
    ],
)
def test_options_that_cannot_be(scored: Path, options: list[str], message: str) -> None:
    before = (scored / "scores.csv").read_bytes()
    result = run(scored, *options)
    assert result.exit_code
    assert message in result.stderr
    assert (scored / "scores.csv").read_bytes() == before
