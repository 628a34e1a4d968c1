"""A bundle for a GPU machine: cut into parts and unpacked again, in pieces, damaged, hostile.

Whatever is wrong is one line, and nothing is written beside the bundle's own folder.
"""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from kit.official_downloads import agiqa_3k

Script = Callable[[str], ModuleType]
FILES = {  # of a content: by name, the bytes
    "wheels/one-1.0-py3-none-any.whl": b"w" * 1500,
    "ipce.csv": b"name,set\n",
    "agiqa-3k/data.csv": b"name\n",
    "agiqa-3k/AGIQA-3K/a_1.jpg": b"j" * 3000,
    "nano/n.whl": bytes(range(256)) * 20,
}


@pytest.fixture
def parts(script: Script, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("parts")
    monkeypatch.setattr(module, "PART", 2000)
    return module


@pytest.fixture
def bundle(parts: ModuleType, tmp_path: Path) -> Path:
    """A bundle of 2,000 bytes a part, as it was made."""
    folder = tmp_path / "inside" / "bundle"
    folder.mkdir(parents=True)
    return cut(parts, FILES, folder)


def cut(parts: ModuleType, files: dict[str, bytes], folder: Path) -> Path:
    content = folder.parent / "content"
    for name, data in files.items():
        (content / name).parent.mkdir(parents=True, exist_ok=True)
        (content / name).write_bytes(data)
    parts.cut(content, folder)
    shutil.rmtree(content)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Each file below a folder, but for the stamps."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix != ".done"}  # fmt: skip


def refusal(parts: ModuleType, work: Callable[[], object]) -> str:
    """The one line with which it refuses."""
    with pytest.raises(parts.InputError) as refused:
        work()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_was_cut_is_unpacked(parts: ModuleType, bundle: Path) -> None:
    assert all(path.stat().st_size <= 2000 for path in bundle.glob("part-*"))
    assert len(list(bundle.glob("part-*"))) > len(parts.ENTRIES)
    assert parts.unpack(bundle) == []
    assert tree(bundle / "unpacked") == FILES
    (bundle / "unpacked/nano/n.whl").write_bytes(b"own")
    assert parts.unpack(bundle) == []  # once is enough
    assert tree(bundle / "unpacked") == FILES | {"nano/n.whl": b"own"}


def test_parts_arrive_one_by_one(parts: ModuleType, bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    shutil.copy(bundle / "bundle.json", there)
    whole: dict[str, bytes] = {}
    for part in sorted(bundle.glob("part-*")):
        assert parts.unpack(there), "something is still to be brought"
        shutil.copy(part, there)
        parts.unpack(there)
        unpacked = tree(there / "unpacked")
        assert unpacked.items() >= whole.items()
        assert unpacked == {name: data for name, data in FILES.items()
                            if (there / "unpacked" / name.split("/")[0]).exists()}  # fmt: skip
        whole = unpacked
    assert whole == FILES
    assert parts.unpack(there) == []


@pytest.mark.parametrize("fault", ["missing", "flipped", "short", "long", "a folder"])
def test_a_part_that_is_not_right_is_named_and_the_rest_unpacked(
    parts: ModuleType, bundle: Path, fault: str
) -> None:
    part = bundle / "part-00"
    data = part.read_bytes()
    part.unlink()
    if fault == "flipped":
        part.write_bytes(data[:900] + bytes([data[900] ^ 1]) + data[901:])
    elif fault in ("short", "long"):
        part.write_bytes(data[:-1] if fault == "short" else data + b"x")
    elif fault == "a folder":
        part.mkdir()
    (line,) = parts.unpack(bundle)
    assert f"part-00 is {'missing' if fault in ('missing', 'a folder') else 'damaged'}" in line
    assert "wheels are left out" in line
    rest = {name: data for name, data in FILES.items() if not name.startswith("wheels")}
    assert tree(bundle / "unpacked") == rest
    shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
    part.write_bytes(data)
    assert parts.unpack(bundle) == []
    assert tree(bundle / "unpacked") == FILES


def test_another_bundle_takes_the_place_of_an_older(parts: ModuleType, bundle: Path) -> None:
    parts.unpack(bundle)
    fewer = {"wheels/two-1.0-py3-none-any.whl": b"2", "nano/n.whl": FILES["nano/n.whl"]}
    cut(parts, fewer, bundle)
    named = json.loads((bundle / "bundle.json").read_text())
    left = {path.name for path in bundle.glob("part-*")}
    assert left == {name for digests in named.values() for name in digests}
    parts.unpack(bundle)
    unpacked = tree(bundle / "unpacked")
    assert {name for name in unpacked if name.startswith("wheels")} == {next(iter(fewer))}
    assert unpacked["nano/n.whl"] == FILES["nano/n.whl"]


def test_parts_without_a_list_are_somebody_elses(parts: ModuleType, bundle: Path) -> None:
    (bundle / "bundle.json").unlink()
    before = tree(bundle)
    assert "part-00" in refusal(parts, lambda: cut(parts, FILES, bundle))
    assert tree(bundle) == before


DIGEST = "0" * 64
WRONG_LISTS = {
    "cut off": ('{"wheels": {"part-00"', "found Expecting"),
    "empty": ("", "expected JSON"),
    "not text": (b"\xff\xfe\x00", "expected JSON"),
    "deep": ("[" * 20_000, "brackets within brackets"),
    "large": (" " * 70_000, "expected the entries"),
    "a list": ("[]", "expected the entries"),
    "of an older kind": (json.dumps({"part-00": DIGEST}), "found 'part-00'"),
    "no parts": ('{"wheels": {}}', "expected the parts of wheels"),
    "parts in a list": ('{"wheels": ["part-00"]}', "expected the parts of wheels"),
    "another entry": (json.dumps({"../wheels": {"part-00": DIGEST}}), "found '../wheels'"),
    "an absolute entry": (json.dumps({"/etc": {"part-00": DIGEST}}), "found '/etc'"),
    "above": (json.dumps({"wheels": {"../x": DIGEST}}), "found '../x'"),
    "absolute": (json.dumps({"wheels": {"/etc/passwd": DIGEST}}), "found '/etc/passwd'"),
    "another name": (json.dumps({"wheels": {"part-1": DIGEST}}), "found 'part-1'"),
    "a longer name": (json.dumps({"wheels": {"part-00\n": DIGEST}}), "found 'part-00"),
    "a path": (json.dumps({"wheels": {"part-00/../../x": DIGEST}}), "found 'part-00/"),
    "no digest": (json.dumps({"wheels": {"part-00": "zz"}}), "expected the sha256 of part-00"),
    "a number": (json.dumps({"wheels": {"part-00": 7}}), "expected the sha256 of part-00"),
    "twice": (f'{{"wheels": {{"part-00": "{DIGEST}", "part-00": "{DIGEST}"}}}}', "twice"),
    "in two": (json.dumps({"wheels": {"part-00": DIGEST}, "nano": {"part-00": DIGEST}}), "in two"),
}


@pytest.mark.parametrize("kind", WRONG_LISTS)
def test_a_wrong_list_of_parts_is_one_line(parts: ModuleType, bundle: Path, kind: str) -> None:
    text, says = WRONG_LISTS[kind]
    (bundle.parent / "x").write_bytes(b"outside")
    (bundle / "bundle.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = tree(bundle.parent)
    line = refusal(parts, lambda: parts.unpack(bundle))
    assert says in line
    assert "make the bundle again" in line
    assert tree(bundle.parent) == before


def test_no_list_of_parts_is_one_line(parts: ModuleType, bundle: Path) -> None:
    (bundle / "bundle.json").unlink()
    assert "No such file" in refusal(parts, lambda: parts.unpack(bundle))
    (bundle / "bundle.json").mkdir()
    assert "Is a directory" in refusal(parts, lambda: parts.unpack(bundle))


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "wheels/big",
          "GNU.sparse.realsize": str(1 << 40)}  # fmt: skip
HOSTILE = {
    "above": [member("wheels/../../x", size=1)],
    "beside": [member("other/x", size=1)],
    "the stamp": [member("nano.done", size=1)],
    "absolute": [member("/tmp/agiqa-outside", size=1)],
    "a link": [member("wheels/x", type=tarfile.SYMTYPE, linkname="../../../x")],
    "through a link": [member("wheels", type=tarfile.SYMTYPE, linkname="../.."),
                       member("wheels/x", size=1)],
    "a hard link": [member("wheels/x", type=tarfile.LNKTYPE, linkname="../bundle.json")],
    "a pipe": [member("wheels/x", type=tarfile.FIFOTYPE)],
    "a device": [member("wheels/x", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "holes": [member("wheels/big", size=512, pax_headers=SPARSE)],
    "nothing": [],
    "escapes": [member("\x1b[2Jwheels/x", size=1)],
}  # fmt: skip


@pytest.mark.parametrize("kind", [*HOSTILE, "no tar", "cut off", "many"])
def test_a_hostile_tar_is_one_line(
    parts: ModuleType, bundle: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info in HOSTILE.get(kind, [member("wheels/a", size=9000), member("wheels/b")]):
            content = b"1\n0\n1\n".ljust(512, b"\0") if kind == "holes" else bytes(info.size)
            tar.addfile(info, io.BytesIO(content))
    (bundle.parent / "x").write_bytes(b"outside")
    shutil.rmtree(bundle)
    bundle.mkdir()
    if kind == "many":
        monkeypatch.setattr(parts, "MOST_MEMBERS", 1)
    whole = {"no tar": b"no tar at all" * 100, "cut off": data.getvalue()[:5000]}
    whole_bytes = whole.get(kind, data.getvalue())
    digests = {}
    for number in range(-(-len(whole_bytes) // 2000)):
        piece = whole_bytes[2000 * number : 2000 * (number + 1)]
        (bundle / f"part-{number:02d}").write_bytes(piece)
        digests[f"part-{number:02d}"] = hashlib.sha256(piece).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps({"wheels": digests}))
    before = tree(bundle.parent)
    line = refusal(parts, lambda: parts.unpack(bundle))
    assert "expected a tar of the files of wheels" in line
    assert line.isprintable()
    assert tree(bundle.parent) == before
    assert not Path("/tmp/agiqa-outside").exists()


def test_a_disk_without_room_is_said_before_unpacking(
    parts: ModuleType, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    line = refusal(parts, lambda: parts.unpack(bundle))
    assert "of disk to unpack wheels" in line
    assert tree(bundle / "unpacked") == {}


def test_a_full_disk_leaves_nothing_half(
    parts: ModuleType, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as changed:
        changed.setattr(shutil, "copyfileobj", full)
        assert "No space left" in refusal(parts, lambda: parts.unpack(bundle))
    assert tree(bundle / "unpacked") == {}
    assert not list(bundle.glob("unpacking-*"))
    assert parts.unpack(bundle) == []
    assert tree(bundle / "unpacked") == FILES


@pytest.fixture
def make(script: Script, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs bundle.py; returns the one line with which it ends, or nothing. Fetches nothing."""
    module = script("bundle")

    def wheels(folder: Path) -> None:
        folder.mkdir()
        (folder / "one-1.0-py3-none-any.whl").write_bytes(b"w")

    monkeypatch.setattr(module, "fetch_wheels", wheels)
    monkeypatch.setattr(module, "copy_nano", wheels)

    def run(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["bundle.py", *map(str, words)])
        try:
            module.main()
        except SystemExit as ended:
            code = ended.code
        else:
            code = ""
        assert code is not None, "wrong input has an exit status"
        assert "\n" not in str(code)
        return str(code)

    return run


def ipce(folder: Path) -> Path:
    """Two splits as IPCE released its ten."""
    generators = ("AttnGAN_normal", "sd1.5_lowcorr")
    names = [f"{name}_{prompt:03d}.jpg" for name in generators for prompt in range(6)]
    for split in ("1", "2"):
        (folder / split).mkdir(parents=True)
        for side, chosen in (("train", names[:8]), ("val", names[8:])):
            pd.DataFrame({"name": chosen}).to_csv(folder / split / f"{side}.csv", index=False)
    return folder


def test_a_data_set_becomes_a_bundle(
    make: Callable[..., str], parts: ModuleType, tmp_path: Path
) -> None:
    dataset = agiqa_3k(tmp_path / "agiqa-3k")
    with Image.new("RGB", (512, 400)) as large:
        large.save(dataset / "AGIQA-3K/sd1.5_lowcorr_000.jpg")
    splits = ipce(tmp_path / "IPCE")
    assert make(tmp_path / "new/bundle", "--dataset", dataset, "--splits", splits) == ""
    assert parts.unpack(tmp_path / "new/bundle") == []
    unpacked = tmp_path / "new/bundle/unpacked"
    entries = {path.name for path in unpacked.iterdir() if path.suffix != ".done"}
    assert entries == {"agiqa-3k", "ipce.csv", "nano", "wheels"}
    assert set(tree(unpacked / "agiqa-3k")) == set(tree(dataset))
    dealt = pd.read_csv(unpacked / "ipce.csv")
    assert len(dealt) == 2 * 12
    assert set(dealt["side"]) == {"train", "test"}
    with Image.open(unpacked / "agiqa-3k/AGIQA-3K/sd1.5_lowcorr_000.jpg") as small:
        assert small.size == (384, 300)
    assert not list((tmp_path / "new/bundle").glob("content-*"))


def test_what_cannot_be_bundled_is_one_line_before_any_work(
    make: Callable[..., str], tmp_path: Path
) -> None:
    dataset = agiqa_3k(tmp_path / "agiqa-3k")
    out, file, empty = tmp_path / "out", tmp_path / "file", tmp_path / "empty"
    file.touch()
    empty.mkdir()
    assert "expected --dataset FOLDER" in make(out)
    assert "nowhere: expected the folder of the unpacked AGIQA-3K, found none" in make(
        out, "--dataset", tmp_path / "nowhere"
    )
    assert "found a file" in make(out, "--dataset", file)
    assert "expected data.csv" in make(out, "--dataset", empty)
    assert "expected IPCE's splits" in make(out, "--dataset", dataset, "--splits", empty / "x")
    assert "expected train.csv" in make(out, "--dataset", dataset, "--splits", empty)
    labels = make(out, "--dataset", dataset, "--splits", dataset / "data.csv")
    assert "found no column of sides" in labels
    assert "expected a folder for the parts, found a file" in make(file, "--dataset", dataset)
    assert "Not a directory" in make(file / "below", "--dataset", dataset)
    assert "expected a folder outside" in make(dataset / "bundle", "--dataset", dataset)
    assert "found No such file" in make(empty, "--unpack")
    (dataset / "AGIQA-3K/sd1.5_lowcorr_000.jpg").unlink()
    absent = make(out, "--dataset", dataset)
    assert "found 1 of them absent, such as 'sd1.5_lowcorr_000.jpg'" in absent
    assert not out.exists()
    assert not list(empty.iterdir())


def test_a_damaged_image_or_no_network_leaves_the_older_bundle(
    make: Callable[..., str], script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dataset, out = agiqa_3k(tmp_path / "agiqa-3k"), tmp_path / "out"
    assert make(out, "--dataset", dataset) == ""
    before = tree(out)
    module = script("bundle")
    broken = dataset / "AGIQA-3K/sd1.5_lowcorr_000.jpg"
    data = broken.read_bytes()
    broken.write_bytes(b"no image")
    assert "expected an image" in make(out, "--dataset", dataset)
    broken.write_bytes(data)

    def offline(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "x\nERROR: No matching distribution\n")

    monkeypatch.undo()
    module = script("bundle")
    monkeypatch.setattr(module, "copy_nano", lambda folder: folder.mkdir())
    monkeypatch.setattr(module.subprocess, "run", offline)
    with pytest.raises(module.InputError, match=r"No matching distribution\): connect, and"):
        module.make(out, dataset, None)
    assert tree(out) == before
