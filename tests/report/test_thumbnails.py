import base64
import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from PIL import Image

from agiqa.datasets.table import read_table
from agiqa.report.results import average_images, read_results
from agiqa.report.thumbnails import SIDE, galleries, problems


def test_misses_are_the_largest_errors_and_hits_come_from_the_whole_range(
    tiny_run: Callable[..., Path],
) -> None:
    root = tiny_run()
    images = average_images(read_results(root / "run"))
    hits, high, low = galleries(images, read_table(root / "cache" / "tiny"), 1.0, 5.0)
    errors = images.set_index("path")["error"]
    ordered = errors.sort_values()
    assert [p.path for p in high.pictures] == list(ordered.index[::-1][:6])
    assert [p.path for p in low.pictures] == list(ordered.index[:6])
    mos = [float(p.mos) for p in hits.pictures]
    assert mos == sorted(mos)
    assert mos[0] < 2.5 < 3.5 < mos[-1]
    misses = {p.path for p in (*high.pictures, *low.pictures)}
    assert not misses & {p.path for p in hits.pictures}
    assert problems([hits, high, low]) == []


def test_pictures_are_small_jpegs(tiny_run: Callable[..., Path]) -> None:
    root = tiny_run()
    Image.new("RGB", (1200, 600), "red").save(root / "images" / "00 a&b.png")
    images = pd.DataFrame(
        {"path": ["00 a&b.png"], "generator": ["g"], "mos": [2.0], "score": [4.0], "error": [2.0]}
    )
    (high,) = galleries(images, read_table(root / "cache" / "tiny"), 1.0, 5.0)
    (picture,) = high.pictures
    assert (picture.mos_at, picture.score_at) == (25.0, 75.0)
    kind, data = picture.source.split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (SIDE, SIDE // 2)


def test_average_images_average_the_splits(tiny_run: Callable[..., Path]) -> None:
    root = tiny_run()
    predictions = pd.read_csv(root / "run" / "predictions.csv")
    moe = predictions[predictions["model"] == "moe"]
    images = average_images(read_results(root / "run"))
    assert len(images) == moe["path"].nunique()
    assert images["splits"].sum() == len(moe)
    first = images.iloc[0]
    own = moe[moe["path"] == first["path"]]
    assert abs(first["score"] - own["score"].mean()) < 1e-9
