"""Images as people hold them: every kind gives the same images; what is damaged is one line."""

import io
import json
import tarfile
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.runs.image_inputs import read_inputs
from agiqa.runs.input_addresses import expand_braces
from agiqa.runs.select import put_images
from agiqa.runs.shards import Columns, ImageInput

PROMPTS = ["a cat", "a cat", "ein Bär"]
NAMES = ["pictures/a.png", "pictures/b.png", "pictures/sub/c.png"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three small PNGs: a.png, b.png, sub/c.png."""
    for number, name in enumerate(NAMES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


def content(image: ImageInput) -> bytes:
    assert not image.problem, image.problem
    return image.content if image.path is None and image.content else image.path.read_bytes()  # type: ignore[union-attr]


def contents(*named: object, columns: Columns | None = None) -> list[bytes]:
    return [content(image) for image in read_inputs([str(name) for name in named], columns)]


@pytest.fixture
def expected(pictures: Path) -> list[bytes]:
    return [(pictures.parent / name).read_bytes() for name in NAMES]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


def test_files_folders_globs_lists_and_tables_are_the_same_images(
    pictures: Path, expected: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "all.txt").write_text("\n".join(NAMES))
    rows = [f"{name},{prompt}" for name, prompt in zip(NAMES, PROMPTS, strict=True)]
    (tmp_path / "all.csv").write_text("\n".join(["file,prompt", *rows]))
    assert contents(pictures) == expected
    assert contents(pictures / "a.png", pictures / "b.png", pictures / "sub") == expected
    assert contents(pictures / "**/*.png") == expected
    assert contents(pictures / "{a,b}.png", pictures / "sub/c.png") == expected
    assert contents(tmp_path / "all.txt") == expected
    assert contents(tmp_path / "all.csv") == expected
    images = list(read_inputs([str(tmp_path / "all.csv")], Columns(kept=["prompt"])))
    assert [image.prompt for image in images] == PROMPTS
    assert images[2].columns == {"prompt": "ein Bär"}


def test_a_webdataset_tar(expected: list[bytes], tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for number, (data, prompt) in enumerate(zip(expected, PROMPTS, strict=True)):
        members[f"{number:03}.png"] = data
        members[f"{number:03}.txt"] = prompt.encode()
        members[f"{number:03}.json"] = json.dumps(
            {"seed": number, "box": [1], "Said": "a dog"}
        ).encode()
    tar = write_tar(tmp_path / "s-00.tar", list(members.items())[:6])
    write_tar(tmp_path / "s-01.tar", list(members.items())[6:])
    images = list(read_inputs([str(tmp_path / "s-{00..01}.tar")], Columns(kept=["seed"])))
    assert [content(image) for image in images] == expected
    assert [image.prompt for image in images] == PROMPTS
    assert images[1].columns == {"seed": 1}
    assert images[1].name == f"{tar}:001.png"
    named = read_inputs([str(tar)], Columns(prompt="Said"))
    assert next(named).prompt == "a dog"  # as asked, whatever the .txt says
    (tmp_path / "shards").mkdir()
    for shard in ("s-00.tar", "s-01.tar"):
        (tmp_path / shard).rename(tmp_path / "shards" / shard)
    assert contents(tmp_path / "shards") == expected  # a folder of shards


def test_parquet_and_arrow_with_bytes_or_paths(
    pictures: Path, expected: list[bytes], tmp_path: Path
) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    cells = [{"bytes": data, "path": None} for data in expected]
    for kind, column in {"bytes": expected, "paths": NAMES, "hub": cells}.items():
        table = arrow.table({"image": column, "caption": PROMPTS})
        parquet.write_table(table, tmp_path / f"{kind}.parquet")
        assert contents(tmp_path / f"{kind}.parquet") == expected, kind
    with arrow.ipc.new_stream(tmp_path / "data-00000.arrow", table.schema) as stream:
        stream.write_table(table)
    images = list(read_inputs([str(tmp_path / "data-00000.arrow")]))
    assert [content(image) for image in images] == expected
    assert [image.prompt for image in images] == PROMPTS
    with pytest.raises(AgiqaError, match=r"expected the column picture; found image, caption"):
        contents(tmp_path / "hub.parquet", columns=Columns("picture"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server of the folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls_of_any_file_system(
    pictures: Path, expected: list[bytes], tmp_path: Path, site: str
) -> None:
    write_tar(tmp_path / "s.tar", [(f"{n}.png", data) for n, data in enumerate(expected)])
    (tmp_path / "urls.txt").write_text(f"{site}/pictures/a.png\n{site}/pictures/none.png\n")
    assert contents(f"file://{pictures}") == expected
    assert contents(f"file://{tmp_path}/s.tar") == expected
    assert contents(f"{site}/pictures/a.png", f"{site}/pictures/b.png") == expected[:2]
    (tmp_path / "t.csv").write_text("image\npictures/a.png\n")
    assert contents(f"{site}/t.csv?of=today", f"{site}/s.tar")[:1] == expected[:1]
    for none in (f"{site}/none.tar", "memory://none.csv"):
        with pytest.raises(AgiqaError, match=r"/none\....: does not exist"):
            next(read_inputs([f"{site}/s.tar", none]))  # before any is read
    first, second = read_inputs([str(tmp_path / "urls.txt")])
    assert content(first) == expected[0]
    assert "nothing there" in second.problem


def test_patterns_tables_and_lists_at_urls(expected: list[bytes], tmp_path: Path) -> None:
    """Names in them are looked up beside them; here `file://` is a path."""
    files = {f"sub/{name}.png": data for name, data in zip("abc", expected, strict=True)}
    files["t.csv"] = b"image\n" + "\n".join(files).encode()
    files["all.txt"] = b"# three\n\nsub/a.png\nsub/{b,c}.png\n"
    files["some.lst"] = b"sub/*.png"
    for root in ("memory://shelf", f"file://{tmp_path}/shelf"):
        system, folder = fsspec.core.url_to_fs(root)
        for name, data in files.items():
            system.makedirs(f"{folder}/sub", exist_ok=True)
            system.pipe_file(f"{folder}/{name}", data)
        for name in ("sub/*.png", "**/[abc].png", "t.csv", "all.txt", "some.lst", "sub", "*.csv"):
            assert contents(f"{root}/{name}") == expected, name
        with pytest.raises(AgiqaError, match=r"shelf/\*.bmp: is a pattern that fits no file"):
            contents(f"{root}/*.bmp")
    assert next(read_inputs(["memory://shelf/s*/b*"])).name == "memory://shelf/sub/b.png"
    with pytest.raises(AgiqaError, match="web servers list no files"):
        contents("http://127.0.0.1:9/*.png")
    (image,) = read_inputs(["memory://shelf/none.png"])
    assert image.problem.startswith("cannot be read: nothing there")


def test_one_s_own_tables_lead_anywhere(
    pictures: Path, expected: list[bytes], tmp_path: Path, site: str
) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    cells = [str(pictures / "a.png"), f"{site}/pictures/b.png", "../pictures/sub/c.png"]
    table.write_text("\n".join(["image", *cells, "none.png", f"file://{pictures}/a.png"]))
    pd.read_csv(table).to_parquet(table.with_suffix(".parquet"))
    for suffix in (".csv", ".parquet"):
        *images, missing, again = read_inputs([str(table.with_suffix(suffix))])
        assert [content(image) for image in images] == expected
        assert (missing.path, content(again)) == (table.with_name("none.png"), expected[0])


def test_lines_of_a_list_are_as_if_they_were_typed(
    pictures: Path, expected: list[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "lists [1]"  # no pattern
    folder.mkdir()
    write_tar(folder / "s-1.tar", [("c.png", expected[2])])
    lines = ["# mine", "../pictures/{a,b}.png", "*-[1].tar", "", "  ../pictures", "none-*.png"]
    (folder / "all.txt").write_text("\n".join([*lines, "*.txt", "gone.png"]))
    *images, pattern, itself, gone = read_inputs([str(folder / "all.txt")])
    assert [content(image) for image in images] == [*expected, *expected]
    assert pattern.problem == "is a pattern that fits no file"
    assert (itself.name, itself.problem[:19]) == (str(folder / "all.txt"), "is a list in a list")
    assert (gone.name, gone.problem) == (str(folder / "gone.png"), "does not exist")


def test_what_a_folder_holds_and_is_not_read_is_said(
    pictures: Path, expected: list[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tar(pictures / "s.tar", [("c.png", expected[2])])
    (pictures / "labels.csv").write_text("image\na.png\n")
    (pictures / "linked").symlink_to(tmp_path)
    assert contents(pictures) == expected
    links, shards = (record.getMessage() for record in caplog.records)
    assert f"linked folders are not read ({pictures}/linked): name them, too" in links
    named = f"{pictures}/labels.csv, {pictures}/s.tar"
    assert f"its images are scored; not read are {named}: name them" in shards


def test_a_damaged_shard_takes_no_other_with_it(expected: list[bytes], tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", [(f"{n}.png", data) for n, data in enumerate(expected)])
    cut = tmp_path / "b.tar"
    cut.write_bytes(whole.read_bytes()[: 2 * 1024 + 512 + 10])
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    names = [str(cut), str(tmp_path / "c.parquet"), str(whole)]
    first, second, third, fourth, *others = read_inputs(names)
    assert [content(image) for image in (first, second, *others)] == [*expected[:2], *expected]
    assert (third.name, third.problem[:36]) == (names[0], "is damaged, or no uncompressed tar (")
    assert fourth.name == names[1]
    with pytest.raises(AgiqaError, match=r"none\.tar: does not exist"):
        next(read_inputs([*names, str(tmp_path / "none.tar")]))  # before any is read


def test_numbers_stay_numbers(tmp_path: Path, pictures: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,mos,seed,id,version\na.png,3.50,7,007,1.1\nb.png,,8,8,1.10\n")
    kept = ["mos", "seed", "id", "version"]
    rows = [list(image.columns.values()) for image in read_inputs([str(table)], Columns(kept=kept))]
    assert rows == [[3.5, 7, "007", "1.1"], ["", 8, "8", "1.10"]]


@pytest.mark.parametrize("cut", [1000, 0])
def test_a_tar_that_is_cut(tmp_path: Path, cut: int) -> None:
    tar = write_tar(tmp_path / "s.tar", [("a.png", b"1" * 2000)])
    tar.write_bytes(tar.read_bytes()[:cut])
    (image,) = read_inputs([str(tar)])
    assert image.name == str(tar)
    assert image.problem.startswith("is damaged, or no uncompressed tar (")


def test_nothing_of_a_shard_or_table_leaves_its_folder(tmp_path: Path, pictures: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes((pictures / "a.png").read_bytes())
    system = fsspec.filesystem("memory")
    system.pipe({"/stranger/a.png": secret.read_bytes(), "/b.png": b"1"})
    names = ["../b.png", str(secret), f"file://{secret}", f"zip://a::{secret}", "memory://b.png"]
    for suffix, head in {".csv": ["path"], ".txt": ["# names"]}.items():
        system.pipe(f"/stranger/t{suffix}", "\n".join([*head, *names, "a.png"]).encode())
        *others, own = read_inputs([f"memory://stranger/t{suffix}"])
        assert [image.name for image in others] == names
        assert {image.problem[:18] for image in others} == {"leads out of the f"}
        assert content(own) == secret.read_bytes()
    tar = tmp_path / "s.tar"
    with tarfile.open(tar, "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        climbing = tarfile.TarInfo("../../up.png")
        climbing.size = 3
        archive.addfile(climbing, io.BytesIO(b"abc"))
    (image,) = read_inputs([str(tar)])
    assert (image.content, image.path) == (b"abc", None)  # bytes, never a path


def test_a_tar_s_headers_and_members_are_bounded(tmp_path: Path) -> None:
    name = tarfile.TarInfo("./@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    (tmp_path / "long.tar").write_bytes(name.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    (image,) = read_inputs([str(tmp_path / "long.tar")])
    assert "a header of 1,099,511,627,776 bytes" in image.problem
    for size, problem in {
        1 << 30: "has 1,073,741,824 bytes, too many",
        1 << 60: "is damaged, or no uncompressed tar (a member of 1,152,921,504,606,846,976 bytes",
    }.items():
        large = tarfile.TarInfo("large.png")
        large.size = size
        (tmp_path / "large.tar").write_bytes(large.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
        image = next(read_inputs([str(tmp_path / "large.tar")]))  # in no time
        assert image.problem.startswith(problem)


@pytest.mark.parametrize("between", [[], [("b.png", b"b"), ("c.png", b"c")]])
def test_a_name_that_stands_twice_in_a_tar_is_said(
    tmp_path: Path, between: list[tuple[str, bytes]], expected: list[bytes]
) -> None:
    members = [("a.png", expected[0]), *between, ("a.png", expected[1])]
    tar = write_tar(tmp_path / "s.tar", members)
    images = [image for image in read_inputs([str(tar)]) if image.name == f"{tar}:a.png"]
    images.sort(key=lambda image: image.problem)
    assert [image.content for image in images] == [expected[0], None]
    assert images[1].problem == "stands twice in the shard; the first counts"
    put_images([f"{tar}:a.png"], tmp_path / "best", link=False)
    assert (tmp_path / "best" / "a.png").read_bytes() == expected[0]


@pytest.mark.parametrize("suffix", [".tar", ".parquet", ".arrow", ".csv", ".txt"])
@given(data=st.binary(max_size=300))
def test_any_bytes_end_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(data)
    images, message = list[ImageInput](), ""
    try:
        images = list(read_inputs([str(path)]))
    except AgiqaError as error:
        message = str(error)
    assert "\n" not in message
    assert all(image.problem or image.path for image in images)


def test_what_is_not_there(tmp_path: Path) -> None:
    for named, message in {
        "nothing.png": "nothing.png: does not exist",
        "*.png": "is a pattern that fits no file",
    }.items():
        with pytest.raises(AgiqaError, match=message):
            contents(tmp_path / named)
    with pytest.raises(AgiqaError, match="expected a path, found an empty one"):
        contents("")
    (tmp_path / "a.png").touch()
    with pytest.raises(AgiqaError, match=r"column model \(--keep\), found a folder of images"):
        contents(tmp_path, columns=Columns(kept=["model"]))
    (tmp_path / "t.csv").write_text("image;prompt\na.png;a\n")
    with pytest.raises(AgiqaError, match="it is separated by semicolons: save it with commas"):
        contents(tmp_path / "t.csv")
    (tmp_path / "s.tar.gz").touch()
    (image,) = read_inputs([str(tmp_path / "s.tar.gz")])
    assert image.problem.startswith("is compressed: unpack it first (gunzip)")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(AgiqaError, match="found a, b: name it with --image-column"):
        contents(tmp_path / "t.csv")


def test_braces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(expand_braces("{a,b}-{1..3}.tar")) == [
        *("a-1.tar", "a-2.tar", "a-3.tar"),
        *("b-1.tar", "b-2.tar", "b-3.tar"),
    ]
    assert list(expand_braces("a{b}.png")) == ["a{b}.png"]
    monkeypatch.setattr("agiqa.runs.input_addresses.MOST_NAMES", 99)
    for braces in ("{1..99999999999}.tar", "{1..10}{1..10}.png"):
        with pytest.raises(AgiqaError, match="stand for more than 99 names"):
            list(expand_braces(braces))
