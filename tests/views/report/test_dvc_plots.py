from pathlib import Path

import pandas as pd
import yaml
from PIL import Image

from agiqa.views.report import write_plots

REPOSITORY = Path(__file__).parents[3]


def test_every_plot_that_dvc_declares_is_written_with_its_columns(root: Path) -> None:
    folder = write_plots(root / "run", root / "cache" / "tiny")
    stage = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text("utf-8"))["stages"]["report"]
    declared = {Path(path).name: about for plot in stage["plots"] for path, about in plot.items()}
    assert sorted(declared) == sorted(path.name for path in folder.iterdir())
    for name, about in declared.items():
        if name.endswith(".csv"):
            columns = pd.read_csv(folder / name).columns
            assert about["x"] in columns, name
            assert about["y"] in columns, name
        else:
            with Image.open(folder / name) as sheet:
                assert sheet.size == (960, 546)


def test_same_run_same_files(root: Path) -> None:
    made = []
    for _ in range(2):
        folder = write_plots(root / "run", root / "cache" / "tiny")
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]


def test_absent_pictures_leave_grey_tiles(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.write_bytes(b"no image")
    folder = write_plots(root / "run", root / "cache" / "tiny")
    with Image.open(folder / "worst.jpg") as sheet:
        assert all(abs(level - 0xD0) < 4 for level in sheet.convert("RGB").getpixel((80, 80)))
