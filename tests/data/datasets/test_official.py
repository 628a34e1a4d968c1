"""Official downloads in small: what becomes of each, and what spoils one."""

import logging
import shutil
from pathlib import Path
from statistics import stdev

import pandas as pd
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import (
    agiqa_1k,
    agiqa_3k,
    aigiqa_20k,
    evalmi_50k,
    evalmuse_40k,
    koniq_10k,
    spaq,
)
from agiqa.data.datasets.official import Adapter, prepare_download
from agiqa.data.datasets.table import ImagesTable
from kit import official_downloads

MIDJOURNEY = r"quality must be from 0 to 5; found others in 1 of 33 rows \(train/mid.*_1017.png: 27"
KONIQ = r"quality must be from 0 to 100; found others in 1 of 20 rows \(10004473376.jpg: -77"


def made(adapter: Adapter, folder: Path) -> Path:
    """The download of that data set in small."""
    build = getattr(official_downloads, adapter.FACTS.name.replace("-", "_"))
    return Path(build(folder / adapter.FACTS.name))


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
    shutil.move(folder / koniq_10k.LABELS, tmp_path)
    assert len(prepare_download(koniq_10k, tmp_path).frame) == 20


def test_spaq(tmp_path: Path) -> None:
    table = prepared(spaq, tmp_path)
    sheet = pd.read_excel(tmp_path / "spaq/Annotations" / spaq.LABELS)
    assert table.frame["path"].tolist() == sheet["Image name"].tolist()
    for target, column in spaq.COLUMNS.items():
        assert table.frame[target].tolist() == sheet[column].tolist()
    assert [t.name for t in table.targets] == list(spaq.COLUMNS)
    assert {t.scale for t in table.targets} == {(0, 100)}
    assert "set" not in table.frame
    shutil.move(tmp_path / "spaq/Annotations" / spaq.LABELS, tmp_path / "spaq")
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
        (koniq_10k, koniq_10k.LABELS, "expected koniq10k_dist.* found 1024x768: .*subpic/koniq"),
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
        prepare_download(adapter, tmp_path / adapter.FACTS.name)
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
        (koniq_10k, koniq_10k.LABELS, ",set", ",split", "the column set; found image_name, c1"),
        (koniq_10k, koniq_10k.LABELS, ",training", ",train", "of training, validation, test; f"),
        (koniq_10k, koniq_10k.LABELS, "77.3836206897", "-77", KONIQ),
        (koniq_10k, koniq_10k.LABELS, ",105,", ",0,", r"c_total .* in 1 rows \(10004473376.jpg\)"),
        (koniq_10k, koniq_10k.LABELS, "0.527277894494", "", r"column SD must .* row 1 .*jpg\): ''"),
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
    path = made(spaq, tmp_path) / "Annotations" / spaq.LABELS
    pd.read_excel(path).rename(columns={"MOS": "Mean"}).to_excel(path, index=False)
    with pytest.raises(AgiqaError, match=r"xlsx: expected the column MOS; found Image name, Mean"):
        prepare_download(spaq, tmp_path / "spaq")
    folder = made(evalmi_50k, tmp_path)
    pd.DataFrame({"prompt": ["one"]}).to_excel(folder / evalmi_50k.PROMPTS, index=False)
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
    edit(folder / koniq_10k.LABELS, "77.3836206897", "97.5")
    prepare_download(koniq_10k, folder)
    assert "quality is 26…97.5, the published range is 3.91…88.39" in caplog.text


def test_labels_of_another_version_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(agiqa_1k, tmp_path)
    with caplog.at_level(logging.WARNING):
        prepare_download(agiqa_1k, folder)
    assert "expected 1,080 rows, sha256 08befc166117…; found 17, sha256" in caplog.text
    facts = agiqa_1k.FACTS
    monkeypatch.setattr(agiqa_1k, "FACTS", type(facts)(**{**vars(facts), "images": 17}))
    next(folder.rglob("deepai*.jpg")).unlink()  # refuses the download, after the warning
    caplog.clear()
    with caplog.at_level(logging.WARNING), pytest.raises(AgiqaError, match="disagree: 1 of the"):
        prepare_download(agiqa_1k, folder)
    (line,) = caplog.messages
    assert "AIGC_all.csv is of another version: expected 17 rows, sha256 08be" in line
    assert "fetch it from https://github.com/lcysyzxdxc/AGIQA-1k-Database; go on only" in line
