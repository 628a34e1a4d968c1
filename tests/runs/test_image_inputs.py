"""Images as people hold them: every kind gives the same images; what is damaged is one line."""

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.runs.image_inputs import expand_braces, read_inputs
from agiqa.runs.image_shards import Columns, ImageInput

PROMPTS = ["a cat", "a cat", "ein Bär"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three small PNGs: a.png, b.png, sub/c.png."""
    for number, name in enumerate(["a.png", "b.png", "sub/c.png"]):
        path = tmp_path / "pictures" / name
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
    return [(pictures / name).read_bytes() for name in ("a.png", "b.png", "sub/c.png")]


def write_tar(path: Path, members: dict[str, bytes], **options: object) -> Path:
    with tarfile.open(path, "w", **options) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


def test_files_folders_globs_lists_and_tables_are_the_same_images(
    pictures: Path, expected: list[bytes], tmp_path: Path
) -> None:
    names = ["pictures/a.png", "pictures/b.png", "pictures/sub/c.png"]
    (tmp_path / "all.txt").write_text("\n".join(names))
    rows = [f"{name},{prompt}" for name, prompt in zip(names, PROMPTS, strict=True)]
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
        members[f"{number:03}.json"] = json.dumps({"seed": number, "box": [1]}).encode()
    tar = write_tar(tmp_path / "s-00.tar", dict(list(members.items())[:6]))
    write_tar(tmp_path / "s-01.tar", dict(list(members.items())[6:]))
    images = list(read_inputs([str(tmp_path / "s-{00..01}.tar")], Columns(kept=["seed"])))
    assert [content(image) for image in images] == expected
    assert [image.prompt for image in images] == PROMPTS
    assert images[1].columns == {"seed": "1"}
    assert images[1].name == f"{tar}:001.png"
    (tmp_path / "shards").mkdir()
    for shard in ("s-00.tar", "s-01.tar"):
        (tmp_path / shard).rename(tmp_path / "shards" / shard)
    assert contents(tmp_path / "shards") == expected  # a folder of shards


def test_parquet_and_arrow_with_bytes_or_paths(
    pictures: Path, expected: list[bytes], tmp_path: Path
) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    names = ["pictures/a.png", "pictures/b.png", "pictures/sub/c.png"]
    cells = [{"bytes": data, "path": None} for data in expected]
    for kind, column in {"bytes": expected, "paths": names, "hub": cells}.items():
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
    write_tar(tmp_path / "s.tar", {f"{n}.png": data for n, data in enumerate(expected)})
    (tmp_path / "urls.txt").write_text(f"{site}/pictures/a.png\n{site}/pictures/none.png\n")
    assert contents(f"file://{pictures}") == expected
    assert contents(f"file://{tmp_path}/s.tar") == expected
    assert contents(f"{site}/pictures/a.png", f"{site}/pictures/b.png") == expected[:2]
    first, second = read_inputs([str(tmp_path / "urls.txt")])
    assert content(first) == expected[0]
    assert "nothing there" in second.problem


@pytest.mark.parametrize(
    ("members", "cut", "message"),
    [
        ({"a.png": b"1" * 2000}, 1000, "expected an uncompressed tar, found a damaged"),
        ({}, 0, "expected an uncompressed tar"),
    ],
)
def test_a_tar_that_is_cut(
    tmp_path: Path, members: dict[str, bytes], cut: int, message: str
) -> None:
    tar = write_tar(tmp_path / "s.tar", members)
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(AgiqaError, match=message):
        contents(tar)


def test_nothing_of_a_shard_or_table_leaves_its_folder(tmp_path: Path, pictures: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes((pictures / "a.png").read_bytes())
    inner = pictures / "t.csv"
    inner.write_text(f"path\n../secret.png\n{secret}\na.png\n")
    first, second, third = read_inputs([str(inner)])
    assert "not inside the data folder" in first.problem
    assert "not inside the data folder" in second.problem
    assert not third.problem
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
    with pytest.raises(AgiqaError, match="a header of 1,099,511,627,776 bytes"):
        contents(tmp_path / "long.tar")
    large = tarfile.TarInfo("large.png")
    large.size = 1 << 40
    (tmp_path / "large.tar").write_bytes(large.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    images = read_inputs([str(tmp_path / "large.tar")])
    assert next(images).problem == "has 1,099,511,627,776 bytes, too many"


def test_a_name_that_stands_twice_in_a_tar_is_said(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for data in (b"abc", b"abcd"):
            member = tarfile.TarInfo("a.png")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    images = sorted(read_inputs([str(tmp_path / "s.tar")]), key=lambda image: image.problem)
    assert [image.content for image in images] == [b"abc", None]
    assert images[1].problem == "stands twice in the shard; the first counts"


@pytest.mark.parametrize("suffix", [".tar", ".parquet", ".arrow", ".csv", ".txt"])
@given(data=st.binary(max_size=300))
def test_any_bytes_end_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / f"x{suffix}"
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
        "nothing.png": "no such file or folder",
        "*.png": "expected images of that pattern, found none",
    }.items():
        with pytest.raises(AgiqaError, match=message):
            contents(tmp_path / named)
    with pytest.raises(AgiqaError, match="expected a path, found an empty one"):
        contents("")
    (tmp_path / "a.png").touch()
    with pytest.raises(AgiqaError, match=r"column model \(--keep\), found a folder of images"):
        contents(tmp_path, columns=Columns(kept=["model"]))
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(AgiqaError, match="found a, b: name it with --image-column"):
        contents(tmp_path / "t.csv")


def test_braces() -> None:
    assert list(expand_braces("{a,b}-{1..3}.tar")) == [
        *("a-1.tar", "a-2.tar", "a-3.tar"),
        *("b-1.tar", "b-2.tar", "b-3.tar"),
    ]
    assert list(expand_braces("a{b}.png")) == ["a{b}.png"]
    with pytest.raises(AgiqaError, match="a range of 1 to 1,000,000 numbers"):
        list(expand_braces("{1..99999999999}.tar"))
