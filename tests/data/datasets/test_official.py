"""Official downloads in small: how each is fetched, what becomes of it, and what spoils one."""

import io
import logging
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pandas as pd
import pytest
from click.testing import Result

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.adapters import OFFICIAL, SPAQ_COLUMNS
from agiqa.data.datasets.official import Adapter, _unpack, download, prepare_download
from agiqa.data.datasets.table import ImagesTable, read_table
from kit import official_downloads
from kit.command import agiqa, one_line
from kit.hub_server import Hub, serve
from kit.publishing import use_hub

agiqa_3k, aigiqa_20k, _, agiqa_1k, evalmuse_40k, evalmi_50k, koniq_10k, spaq = OFFICIAL.values()
KONIQ_LABELS = "koniq10k_distributions_sets.csv"
SPAQ_LABELS = "MOS and Image attribute scores.xlsx"

MIDJOURNEY = r"quality must be from 0 to 5; found others in 1 of 33 rows \(train/mid.*_1017.png: 27"
KONIQ = r"quality must be from 0 to 100; found others in 1 of 20 rows \(10004473376.jpg: -77"


def made(adapter: Adapter, folder: Path) -> Path:
    """The download of that data set in small."""
    build = getattr(official_downloads, adapter.facts.name.replace("-", "_"))
    return Path(build(folder / adapter.facts.name))


def prepared(adapter: Adapter, folder: Path) -> ImagesTable:
    return prepare_download(adapter, made(adapter, folder))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_agiqa_3k(tmp_path: Path) -> None:
    table = prepared(agiqa_3k, tmp_path)
    first, last = table.frame.iloc[0], table.frame.iloc[-1]
    assert (first["path"], last["path"]) == ("AttnGAN_normal_000.jpg", "sd1.5_lowcorr_005.jpg")
    assert (first["generator"], last["generator"]) == ("AttnGAN_normal", "sd1.5_lowcorr")
    assert (last["prompt"], table.frame["group"].nunique()) == ("prompt 5", 6)
    scores = ["quality", "quality_sd", "align", "align_sd"]
    assert last[scores].tolist() == pytest.approx([3.8, 0.2, 0.4, 0.6])
    assert [(t.name, t.scale, t.deviation) for t in table.targets] == [
        ("quality", (0, 5), "quality_sd"),
        ("align", (0, 5), "align_sd"),
    ]
    assert (table.licence, table.synthetic) == ("MIT", False)
    folder = tmp_path / "agiqa-3k"
    shutil.move(folder / "data.csv", folder / "AGIQA-3K" / "data.csv")
    for source in (folder, folder / "AGIQA-3K"):
        assert prepare_download(agiqa_3k, source).frame.equals(table.frame)


@pytest.mark.agiqa3k
def test_the_real_agiqa_3k(agiqa3k: ImagesTable) -> None:
    table, frame = agiqa3k, agiqa3k.frame
    assert len(frame) == 2982
    assert frame["group"].nunique() == 300
    assert frame["generator"].value_counts().to_dict() == dict.fromkeys(
        ("AttnGAN_normal", "glide_normal", "sd1.5_highcorr", "sd1.5_lowcorr", "sd1.5_lowstep",
         "sd1.5_normal", "xl2.2_normal"), 300,
    ) | {"midjourney_lowstep": 296, "midjourney_normal": 296, "DALLE2_normal": 290}  # fmt: skip
    low_high = [(target.low, target.high) for target in table.targets]
    assert low_high[0] == pytest.approx((0, 4.489), abs=1e-3)
    assert low_high[1] == pytest.approx((0.021, 4.286), abs=1e-3)
    twins = frame[frame["image_id"].duplicated(keep=False)]
    assert (len(twins), twins["image_id"].nunique()) == (19, 9)
    assert twins.drop_duplicates(["image_id", "group"])["image_id"].duplicated().any()


def test_aigiqa_20k(tmp_path: Path) -> None:
    table = prepared(aigiqa_20k, tmp_path)
    frame = table.frame
    assert frame["set"].value_counts().to_dict() == {"train": 18, "test": 9, "val": 6}
    assert frame["path"].iloc[0] == "train/DALLE2_1000.png"
    assert sorted(set(frame["generator"])) == ["DALLE2", "SD1.5", "midjourney_v5.2"]
    assert frame["prompt"].iloc[0] == "a train prompt, number 0"
    assert frame["group"].nunique() == 6 + 2 + 3
    labels = pd.read_csv(tmp_path / "aigiqa-20k/info_train.csv")
    assert frame["quality"].iloc[:18].tolist() == labels["mos"].tolist()
    assert frame["quality"].iloc[18:].isna().all()
    assert (table.targets[0].name, table.targets[0].scale) == ("quality", (0, 5))
    folder = official_downloads.aigiqa_20k(tmp_path / "flat", flat=True)
    flat = prepare_download(aigiqa_20k, folder).frame
    assert flat["path"].iloc[0] == "DALLE2_1000.png"
    columns = [column for column in flat.columns if column != "path"]
    pd.testing.assert_frame_equal(flat[columns], frame[columns])


def test_sides_of_aigiqa_20k_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    official = made(aigiqa_20k, tmp_path)
    labels = pd.read_csv(official / "info_val.csv").assign(mos=2.5)  # that came later
    labels.to_csv(official / "info_val.csv", index=False)
    frame = prepare_download(aigiqa_20k, official).frame
    assert frame["quality"][frame["set"] == "val"].tolist() == [2.5] * 6
    for side in ("val", "test"):
        shutil.rmtree(official / side)
        (official / f"info_{side}.csv").unlink()
    assert len(prepare_download(aigiqa_20k, official).frame) == 18
    assert "expected 20,000 rows, sha256 not known; found 18, sha256" in caplog.text


def test_koniq_10k(tmp_path: Path) -> None:
    table = prepared(koniq_10k, tmp_path)
    first = table.frame.iloc[0]
    assert first["path"] == "10004473376.jpg"
    assert (first["quality"], first["set"]) == (77.3836206897, "train")
    assert first["quality_sd"] == pytest.approx(25 * 0.527277894494)
    assert sorted(set(table.frame["set"])) == ["test", "train", "val"]
    assert set(table.frame["prompt"]) | set(table.frame["group"]) == {""}
    (target,) = table.targets
    assert (target.name, target.scale, target.deviation) == ("quality", (0, 100), "quality_sd")
    assert target.raters == "quality_raters"
    assert table.frame["quality_raters"].tolist()[:2] == [105, 96]


@pytest.mark.parametrize(
    ("sizes", "read"),
    [(("1024x768",), "1024x768"), (("512x384",), "512x384"), (("512x384", "1024x768"), "1024x768")],
)
def test_the_larger_size_of_koniq_10k(tmp_path: Path, sizes: tuple[str, ...], read: str) -> None:
    folder = official_downloads.koniq_10k(tmp_path / "koniq10k", sizes=sizes)
    for source in (folder, tmp_path):
        assert prepare_download(koniq_10k, source).root == folder / read
    shutil.move(folder / KONIQ_LABELS, tmp_path)
    assert len(prepare_download(koniq_10k, tmp_path).frame) == 20


def test_spaq(tmp_path: Path) -> None:
    table = prepared(spaq, tmp_path)
    sheet = pd.read_excel(tmp_path / "spaq/Annotations" / SPAQ_LABELS)
    assert table.frame["path"].tolist() == sheet["Image name"].tolist()
    for target, column in SPAQ_COLUMNS.items():
        assert table.frame[target].tolist() == sheet[column].tolist()
    assert [t.name for t in table.targets] == list(SPAQ_COLUMNS)
    assert {t.scale for t in table.targets} == {(0, 100)}
    assert "set" not in table.frame
    shutil.move(tmp_path / "spaq/Annotations" / SPAQ_LABELS, tmp_path / "spaq")
    assert len(prepare_download(spaq, tmp_path / "spaq").frame) == 20


def test_agiqa_1k(tmp_path: Path) -> None:
    table = prepared(agiqa_1k, tmp_path)
    frame = table.frame.set_index("path")
    assert table.root == tmp_path / "agiqa-1k/file"
    # the services number their objects apart, and the same words are the same prompt
    prompt = frame["prompt"]
    assert prompt["deepai_7_7_1_1.jpg"] == "man, playing football, wild, realistic style"
    assert prompt["dreamStudio_6_6_0_1.jpg"] == "man, using phone, city, realistic style"
    assert "dreamStudio_8_9_1_1.jpg" in frame.index  # as a file; the CSV spells it otherwise
    assert frame["generator"].value_counts().to_dict() == {"dreamStudio": 9, "deepai": 8}
    assert frame["quality"].iloc[0] == pytest.approx(40 / 22)


def test_evalmuse_40k(tmp_path: Path) -> None:
    table = prepared(evalmuse_40k, tmp_path)
    first = table.frame.iloc[0]
    assert first["path"] == "LCM-SDXL/00000.png"
    assert (first["generator"], first["prompt"]) == ("LCM-SDXL", "prompt 0")
    assert first["alignment"] == pytest.approx(4 / 3)
    assert first["alignment_sd"] == pytest.approx(stdev([1, 2, 1]))
    assert table.frame["alignment_raters"].tolist()[:5] == [3, 3, 3, 6, 3]
    (target,) = table.targets
    assert (target.scale, target.deviation) == ((1, 5), "alignment_sd")
    assert target.raters == "alignment_raters"
    assert table.frame["group"].nunique() == 8


def test_evalmi_50k(tmp_path: Path) -> None:
    table = prepared(evalmi_50k, tmp_path)
    last = table.frame.iloc[-1]
    assert (last["path"], last["generator"]) == ("vila-u/008.png", "vila-u")
    assert last["prompt"] == "a photo of a 7"
    assert (last["quality"], last["correspondence"]) == (61.5, 60.5)
    assert [target.name for target in table.targets] == ["quality", "correspondence"]
    assert table.frame["group"].value_counts().tolist() == [2] * 8


@pytest.mark.parametrize(
    ("adapter", "folder"),
    [(aigiqa_20k, "AIGCQA-30K-Image"), (spaq, "SPAQ"), (agiqa_1k, "AGIQA-1K")],
)
def test_in_the_folder_of_its_archive(adapter: Adapter, folder: str, tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    count = len(prepared(adapter, tmp_path).frame)
    made(adapter, tmp_path / "again").rename(tmp_path / "shelf" / folder)
    assert len(prepare_download(adapter, tmp_path / "shelf").frame) == count


@pytest.mark.parametrize(
    ("adapter", "part", "message"),
    [
        (agiqa_3k, "data.csv", "expected data.csv beside the folder AGIQA-3K of .* AGIQA-3K: give"),
        (agiqa_3k, "AGIQA-3K", "none of the 12 images .* such as AttnGAN_normal_000.jpg"),
        (aigiqa_20k, "info_train.csv", "expected info_train.csv of AIGIQA-20K, .*modelscope"),
        (koniq_10k, KONIQ_LABELS, "expected koniq10k_dist.* found 1024x768: .*subpic/koniq"),
        (koniq_10k, "1024x768", "in 1024x768 or 512x384, of KonIQ-10k, found koniq10k_dist"),
        (spaq, "Annotations", "expected Annotations/MOS and .*of SPAQ, found TestImage: .*h4nwei"),
        (spaq, "TestImage", "expected the folder TestImage of SPAQ, found Annotat"),
        (agiqa_1k, "AIGC_all.csv", "expected AIGC_all.csv of AGIQA-1K, found file: .*lcysyzxdxc"),
        (evalmuse_40k, "train_list.json", r"expected train_list.json of EvalMuse-40K, .*\(54 GB\)"),
        (evalmi_50k, "AIGI2025_MOS_yn.xlsx", "expected AIGI2025_MOS_yn.* EvalMi-50K, .*IntMeGroup"),
        (evalmi_50k, "", "expected the folder of the unpacked EvalMi-50K, found none: fetch AIGI"),
    ],
)
def test_a_part_that_is_absent(tmp_path: Path, adapter: Adapter, part: str, message: str) -> None:
    path = made(adapter, tmp_path) / part
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(AgiqaError, match=message) as raised:
        prepare_download(adapter, tmp_path / adapter.facts.name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("adapter", "file", "old", "new", "message"),
    [
        (agiqa_3k, "data.csv", "mos_align", "align", "expected the column mos_align; found name"),
        (aigiqa_20k, "info_train.csv", ",mos\n", ",score\n", "the column mos; found name, prompt"),
        (aigiqa_20k, "info_train.csv", ",2.7\n", ",27\n", MIDJOURNEY),
        (aigiqa_20k, "info_train.csv", ",2.7\n", ",\n", r"mos must hold a number .*1017.png\): ''"),
        (aigiqa_20k, "info_train.csv", "E2_1001.", "E2_1000.", "1 image is listed more than once"),
        (aigiqa_20k, "info_train.csv", "DALLE2_1001.png", "../../x.png", "disagree"),
        (koniq_10k, KONIQ_LABELS, ",set", ",split", "the column set; found image_name, c1"),
        (koniq_10k, KONIQ_LABELS, ",training", ",train", "of training, validation, test; f"),
        (koniq_10k, KONIQ_LABELS, "77.3836206897", "-77", KONIQ),
        (koniq_10k, KONIQ_LABELS, ",105,", ",0,", r"c_total .* in 1 rows \(10004473376.jpg\)"),
        (koniq_10k, KONIQ_LABELS, "0.527277894494", "", r"column SD must .* row 1 .*jpg\): ''"),
        (agiqa_1k, "AIGC_all.csv", "deepai_0_0", "deepai_0_99", "names such as deepai_8.* found d"),
        (evalmuse_40k, "train_list.json", "[", "{", "a list of entries with prompt, img_path and"),
        (evalmuse_40k, "train_list.json", '"prompt"', '"p"', r"1 to 5 \(no 'prompt'\): take t"),
        (evalmuse_40k, "train_list.json", "[1, 2, 1]", "[7]", ".entry LCM-SDXL/00000.png has the"),
        (evalmuse_40k, "train_list.json", "[1, 2, 1]", "[]", "entry LCM-SDXL/00000.png has no p"),
    ],
)  # fmt: skip
def test_changed_labels(
    tmp_path: Path, adapter: Adapter, file: str, old: str, new: str, message: str
) -> None:
    folder = made(adapter, tmp_path)
    edit(folder / file, old, new)
    with pytest.raises(AgiqaError, match=message) as raised:
        prepare_download(adapter, folder)
    assert "\n" not in str(raised.value)


def test_changed_sheets(tmp_path: Path) -> None:
    path = made(spaq, tmp_path) / "Annotations" / SPAQ_LABELS
    pd.read_excel(path).rename(columns={"MOS": "Mean"}).to_excel(path, index=False)
    with pytest.raises(AgiqaError, match=r"xlsx: expected the column MOS; found Image name, Mean"):
        prepare_download(spaq, tmp_path / "spaq")
    folder = made(evalmi_50k, tmp_path)
    pd.DataFrame({"prompt": ["one"]}).to_excel(folder / "question.xlsx", index=False)
    with pytest.raises(AgiqaError, match=r"a number up to 1, .*; found DALLE3/002.png: take both"):
        prepare_download(evalmi_50k, folder)


def test_images_and_labels_without_each_other(tmp_path: Path) -> None:
    folder = made(spaq, tmp_path)
    (folder / "TestImage" / "00020.jpg").rename(folder / "TestImage" / "00021.jpg")
    message = r"does not exist \(00020.jpg\); 1 has no row in it \(00021.jpg\)"
    with pytest.raises(AgiqaError, match=f"1 of the 20 that it lists {message}"):
        prepare_download(spaq, folder)
    table = prepare_download(spaq, folder, skip_bad=True)
    assert len(table.frame) == 19
    assert [bad.path for bad in table.skipped] == ["00020.jpg", "00021.jpg"]
    folder = made(aigiqa_20k, tmp_path)
    (folder / "info_val.csv").rename(tmp_path / "info_val.csv")
    with pytest.raises(AgiqaError, match=r"6 have no row in it \(val/DALLE2_1018.png, .*--skip"):
        prepare_download(aigiqa_20k, folder)
    skipped = prepare_download(aigiqa_20k, folder, skip_bad=True).skipped[0]
    assert (skipped.path, skipped.reason) == (
        "val/DALLE2_1018.png", "has no row in info_train.csv",
    )  # fmt: skip
    (tmp_path / "info_val.csv").rename(folder / "info_val.csv")
    shutil.rmtree(folder / "val")
    with pytest.raises(AgiqaError, match=r"6 of the 33 that it lists do not exist \(DALLE2_1018"):
        prepare_download(aigiqa_20k, folder)
    table = prepare_download(aigiqa_20k, folder, skip_bad=True)
    assert (len(table.frame), len(table.skipped)) == (27, 6)


def test_scores_beyond_the_published_range_are_pointed_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made(koniq_10k, tmp_path)
    edit(folder / KONIQ_LABELS, "77.3836206897", "97.5")
    prepare_download(koniq_10k, folder)
    assert "quality is 26…97.5, the published range is 3.91…88.39" in caplog.text


def test_labels_of_another_version_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made(agiqa_1k, tmp_path)
    with caplog.at_level(logging.WARNING):
        prepare_download(agiqa_1k, folder)
    assert "expected 1,080 rows, sha256 08befc166117…; found 17, sha256" in caplog.text
    counted = replace(agiqa_1k, facts=replace(agiqa_1k.facts, images=17))
    next(folder.rglob("deepai*.jpg")).unlink()  # refuses the download, after the warning
    caplog.clear()
    with caplog.at_level(logging.WARNING), pytest.raises(AgiqaError, match="disagree: 1 of the"):
        prepare_download(counted, folder)
    (line,) = caplog.messages
    assert "AIGC_all.csv is of another version: expected 17 rows, sha256 08be" in line
    assert "fetch it from https://github.com/lcysyzxdxc/AGIQA-1k-Database; go on only" in line


# Fetched from the hub

FILLING = 12 << 20  # the library resumes by whole pieces of 10 MiB
Prepare = Callable[..., Result]


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """`agiqa prepare agiqa-3k --download`, which asks the hub at that address, "" for no network.

    What it says stands in `stderr`, its log lines in `caplog`.
    """

    def run(address: str, status: int = 0) -> Result:
        use_hub(monkeypatch, tmp_path / "hub", address)
        folders = "--from", tmp_path / "data", "--cache", tmp_path / "cache"
        return agiqa("prepare", "agiqa-3k", "--download", *folders, status=status)

    return run


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """AGIQA-3K.zip in small, but of several pieces."""
    folder = official_downloads.agiqa_3k(tmp_path_factory.mktemp("source"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for path in sorted(folder.rglob("*.*")):
            file.write(path, path.relative_to(folder))
        file.writestr("readme.txt", b"\0" * FILLING)
    return packed.getvalue()


def _files(archive: bytes) -> dict[str, bytes]:
    return {"AGIQA-3K.zip": archive, "ava.tgz": b"another data set of the same repository"}


def test_a_broken_download_goes_on_and_is_unpacked_and_read(
    archive: bytes, tmp_path: Path, prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    hub: Hub
    with serve(_files(archive), break_after=11 << 20) as hub:
        prepare(hub.address)
    (asked,) = hub.ranges
    assert asked.startswith(f"bytes={10 << 20}-")
    assert "fetching 0.1 GB from huggingface.co/datasets/chaofengc/" in caplog.text
    assert "licence: MIT" in caplog.text
    assert len(read_table(tmp_path / "cache" / "agiqa-3k").frame) == 12
    assert not (tmp_path / "data" / "ava.tgz").exists()
    assert not list((tmp_path / "data").glob(".unpacking*"))
    caplog.clear()
    prepare("")  # it is there: no hub is asked
    assert "fetching" not in caplog.text


def test_a_wrong_checksum(archive: bytes, tmp_path: Path, prepare: Prepare) -> None:
    with serve(_files(archive), stated={"AGIQA-3K.zip": archive + b" "}) as hub:
        one_line(
            prepare(hub.address, status=1),
            "AGIQA-3K.zip: expected the checksum",
            "it was removed; run the command again",
        )
    assert not (tmp_path / "data" / "AGIQA-3K.zip").exists()
    assert not (tmp_path / "cache").exists()


def test_a_file_that_the_hub_has_no_longer(prepare: Prepare) -> None:
    with serve({"ava.tgz": b""}) as hub:
        message = "has no AGIQA-3K.zip any more: follow the links at https://github.com/lcys"
        one_line(prepare(hub.address, status=1), message)


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:9"], ids=["no network", "no answer"])
def test_a_hub_out_of_reach(
    address: str, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # half a minute, between many tries
    one_line(
        prepare(address, status=1),
        "AGIQA-3K cannot be fetched from huggingface.co/datasets/chaofengc/",
        "by hand: follow the links at",
    )


def test_no_copy_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(
        AgiqaError, match=r"AIGIQA-20K has no copy on the hub .*modelscope.* prepare aigiqa-20k"
    ):
        download(aigiqa_20k.facts, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_no_room(tmp_path: Path) -> None:
    assert agiqa_3k.facts.hub is not None
    huge = replace(agiqa_3k.facts.hub, gigabytes=1e9)
    with pytest.raises(AgiqaError, match=r"AGIQA-3K needs 2000000000.0 GB there, .* GB are free"):
        download(replace(agiqa_3k.facts, hub=huge), tmp_path)


def test_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgiqaError, match=r"AGIQA-3K cannot be stored there .*another folder"):
        download(agiqa_3k.facts, tmp_path / "file")


# Archives


def _tar(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def test_unpacking_adds_and_replaces(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tgz", **{"set/1.jpg": b"new", "set/2.jpg": b"two"})
    (tmp_path / "set").mkdir()
    (tmp_path / "set/1.jpg").write_bytes(b"old")
    (tmp_path / "set/own.txt").write_bytes(b"own")
    _unpack(archive, tmp_path)
    contents = {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()}
    assert contents == {"1.jpg": b"new", "2.jpg": b"two", "own.txt": b"own"}


@pytest.mark.parametrize("name", ["../out.jpg", "/tmp/out.jpg"])
def test_nothing_is_unpacked_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    archive = _tar(tmp_path / "in" / "a.tgz", **{name: b"x"})
    if name.startswith("/"):
        _unpack(archive, tmp_path / "in")  # its leading slash is dropped
        assert (tmp_path / "in" / "tmp" / "out.jpg").is_file()
    else:
        with pytest.raises(AgiqaError, match=r"a.tgz: cannot be unpacked .*outside"):
            _unpack(archive, tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_only_files_are_unpacked(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/a.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("link.jpg")
        member.type, member.linkname = kind, "/etc/hostname"
        archive.addfile(member)
    with pytest.raises(AgiqaError, match=r"a.tgz: cannot be unpacked \(link.jpg is a link"):
        _unpack(tmp_path / "in/a.tgz", tmp_path / "in")
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.tgz"]


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_damaged_archives(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive")
    with pytest.raises(AgiqaError, match=rf"{name}: cannot be unpacked"):
        _unpack(tmp_path / name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
