import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import agiqa_3k

HEADER = "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
ROWS = (
    "sd1.5_lowcorr_012.jpg,A Corgi ,,,,1.5,0.2,0.5,0.6\n"
    'AttnGAN_normal_000.jpg,"a corgi",,,anime,0.9,0.2,0.4,0.6\n'
    "xl2.2_normal_299.jpg,sushi,old,,,4.25,0.2,4,0.6\n"
)
NAMES = ("sd1.5_lowcorr_012.jpg", "AttnGAN_normal_000.jpg", "xl2.2_normal_299.jpg")


@pytest.fixture
def official(write_images: Callable[..., Path]) -> Path:
    """The official layout in small: data.csv beside AGIQA-3K/."""
    folder = write_images(*(f"AGIQA-3K/{name}" for name in NAMES))
    (folder / "data.csv").write_text(HEADER + ROWS)
    return folder


def test_official_layout(official: Path) -> None:
    table = agiqa_3k.prepare(official)
    assert table.frame["path"].tolist() == list(NAMES)
    assert table.frame["generator"].tolist() == ["sd1.5_lowcorr", "AttnGAN_normal", "xl2.2_normal"]
    assert table.frame["prompt"].tolist() == ["A Corgi ", "a corgi", "sushi"]
    assert table.frame["group"].tolist() == ["a corgi", "a corgi", "sushi"]
    assert table.frame["quality"].tolist() == [1.5, 0.9, 4.25]
    assert table.frame["align"].tolist() == [0.5, 0.4, 4.0]
    assert table.frame["quality_sd"].tolist() == [0.2, 0.2, 0.2]
    assert table.frame["align_sd"].tolist() == [0.6, 0.6, 0.6]
    assert [(t.name, t.scale, t.deviation) for t in table.targets] == [
        ("quality", (0, 5), "quality_sd"),
        ("align", (0, 5), "align_sd"),
    ]
    assert (table.licence, table.synthetic) == ("MIT", False)


def test_all_in_one_folder(official: Path) -> None:
    expected = agiqa_3k.prepare(official).frame
    shutil.move(official / "data.csv", official / "AGIQA-3K" / "data.csv")
    assert agiqa_3k.prepare(official / "AGIQA-3K").frame.equals(expected)
    assert agiqa_3k.prepare(official).frame.equals(expected)


def test_no_labels(official: Path) -> None:
    (official / "data.csv").unlink()
    with pytest.raises(
        AgiqaError,
        match=r"expected data.csv beside the folder AGIQA-3K of .* found AGIQA-3K: give the",
    ):
        agiqa_3k.prepare(official)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(AgiqaError, match="expected the folder of the unpacked AGIQA-3K"):
        agiqa_3k.prepare(tmp_path / "gone")


def test_no_images(official: Path) -> None:
    shutil.rmtree(official / "AGIQA-3K")
    with pytest.raises(AgiqaError, match=r"none of the 3 images .* such as sd1.5_lowcorr_012.jpg"):
        agiqa_3k.prepare(official)


def test_missing_column(official: Path) -> None:
    (official / "data.csv").write_text((HEADER + ROWS).replace("mos_align", "align"))
    with pytest.raises(AgiqaError, match="expected the column mos_align; found name, prompt, adj1"):
        agiqa_3k.prepare(official)


def test_one_image_absent(official: Path) -> None:
    (official / "AGIQA-3K" / NAMES[2]).unlink()
    with pytest.raises(AgiqaError, match=r"1 of the 3 .* not exist \(xl2.2_normal_299.jpg\)"):
        agiqa_3k.prepare(official)
    assert len(agiqa_3k.prepare(official, skip_bad=True).frame) == 2


@pytest.mark.agiqa3k
def test_the_real_one(agiqa3k_folder: Path) -> None:
    table = agiqa_3k.prepare(agiqa3k_folder)
    frame = table.frame
    assert len(frame) == 2982
    assert frame["group"].nunique() == 300
    assert frame["generator"].value_counts().to_dict() == {
        "AttnGAN_normal": 300,
        "glide_normal": 300,
        "sd1.5_highcorr": 300,
        "sd1.5_lowcorr": 300,
        "sd1.5_lowstep": 300,
        "sd1.5_normal": 300,
        "xl2.2_normal": 300,
        "midjourney_lowstep": 296,
        "midjourney_normal": 296,
        "DALLE2_normal": 290,
    }
    low_high = [(target.low, target.high) for target in table.targets]
    assert low_high[0] == pytest.approx((0, 4.489), abs=1e-3)
    assert low_high[1] == pytest.approx((0.021, 4.286), abs=1e-3)
    twins = frame[frame["image_id"].duplicated(keep=False)]
    assert (len(twins), twins["image_id"].nunique()) == (19, 9)
    assert (twins.groupby("image_id")["group"].nunique() > 1).sum() > 0
