"""The report's page: about one evaluated run, or several on the same splits.

What it draws stands in it as inert JSON; Plotly's own JavaScript (its basic bundle, in folder
plotly) once; the pictures last, in blocks that are decoded when they are shown. (Plotly's WebGL
traces would need `unsafe-eval`, which is why `plots.js` has a canvas of its own.)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.core.whole_files import require_writable_folder, write_whole
from agiqa.data.datasets.table import ImagesTable, read_table
from agiqa.runs.compare import compare
from agiqa.views.kit.page import asset, bundle, inert, render
from agiqa.views.kit.thumbnails import LARGE as LARGE_SIDE
from agiqa.views.kit.thumbnails import SIDES, Thumbnails, make_pictures
from agiqa.views.report import content
from agiqa.views.report.results import (
    ExplainedImages,
    Results,
    average_images,
    read_explanations,
    read_results,
)

SIZE = 28_000_000  # bytes of a page: the pictures get what the rest leaves
TEMPLATE = 300_000  # bytes that its text takes at most
LARGE = (72, 24)  # worst misses and best hits that are kept larger
BLOCK = 128  # pictures in an inert script
MAIN = ("kit/web/dom.js", "kit/web/gallery.js", "report/images.js", "report/plots.js")


def write_report(runs: Sequence[Path], dataset: Path, out: Path) -> Path:
    """Write the page about an evaluated run, or several on the same splits, and give its path.

    It is about the first, the others stand beside it. Prompts and pictures are those of `dataset`,
    `cache/NAME`; absent image files leave gaps only.

    Raises:
        AgiqaError: no such run, a run not evaluated yet, runs of other splits, no images table, or
            no place to write.
    """
    results, comparison = [read_results(run) for run in runs], None
    if len(runs) > 1:
        if len({run.resolve() for run in runs}) < len(runs):
            raise AgiqaError(f"expected different runs, found {some([printable(r) for r in runs])}")
        comparison = compare(*runs)
    table = read_table(dataset)
    require_writable_folder(out.parent)  # before the work, which takes minutes
    write_whole(out, _page(results, comparison, table, dataset).encode("utf-8"))
    return out


def _page(
    runs: Sequence[Results], comparison: dict[str, Any] | None, table: ImagesTable, dataset: Path
) -> str:
    """Everything but the pictures, then the pictures that still fit."""
    images = [average_images(run) for run in runs]
    low, high = content.scale(runs[0], images[0])
    paths, error = list(images[0]["path"]), images[0]["error"].abs()
    by_error = [*map(int, error.sort_values(ascending=False, kind="stable").index)]  # worst first
    rows = {path: row for row, path in enumerate(paths)}
    explained = read_explanations(runs[0].folder, rows, by_error)
    drawn = [content.run_figures(run, of_run) for run, of_run in zip(runs, images, strict=True)]
    side = content.side_by_side(comparison) if comparison else {}
    data = inert(
        {
            "truth": runs[0].truth,
            "low": low,
            "high": high,
            "columns": content.image_columns(runs, images, table),
            "figures": drawn,
            "beside": side.get("figures", {}),
            "explanations": explained.images,
        }
    )
    plotly = asset("report/plotly/plotly-basic.min.js")
    scripts = [plotly, bundle(*MAIN), bundle("report/start.js")]
    room = SIZE - TEMPLATE - sum(len(text.encode()) for text in (data, *scripts))
    pictures, maps = _pictures(table, images[0], explained, by_error, room)
    missing = _missing(paths, pictures, maps)
    texts = content.content(runs[0], images[0], table, dataset, explained) | {
        "runs": [run.name for run in runs],
        # A run that has more experts than the first has places for their figures, too.
        "figures": {name: figure for run in reversed(drawn) for name, figure in run.items()},
        "side": side,
        "missing": missing,
        "missing_some": some([printable(reason) for reason in missing]),
        "pictures": pictures,
        "data": data,
        "blocks": _blocks(pictures, maps),
    }
    return render("report/report.html.j2", texts, ["report/report.css"], scripts, any_style=True)


def _pictures(
    table: ImagesTable,
    images: pd.DataFrame,
    explained: ExplainedImages,
    by_error: Sequence[int],
    room: int,
) -> tuple[Thumbnails, Thumbnails]:
    """The images' pictures, and those of their maps, in `room` bytes together."""
    listed = set(table.frame["path"])
    files: list[Path | str] = []
    for path in images["path"]:
        if path not in listed:
            files.append("is not in the data set any more")
        elif table.root is None:
            files.append("is not on this machine")
        else:
            files.append(table.root / path)
    large = [*by_error[: LARGE[0]], *by_error[::-1][: LARGE[1]]]
    reserve = min(room // 8, 2_200_000)  # of the large ones
    share = 1 - 0.5 * len(explained.overlays) / max(1, len(images))
    pictures = make_pictures(files, int((room - reserve) * share), by_error, large)
    if not explained.overlays:
        return pictures, Thumbnails(0, [], {}, {})
    maps: list[Path | str] = [explained.overlays.get(row, "") for row in range(len(images))]
    room -= reserve + sum(map(len, pictures.small))
    return pictures, make_pictures(maps, room, by_error, label="Maps", sides=(LARGE_SIDE, *SIDES))


def _missing(paths: Sequence[str], pictures: Thumbnails, maps: Thumbnails) -> list[str]:
    """Which pictures and maps are not there, and why."""
    missing = [f"{paths[row]} {why}" for row, why in pictures.problems.items()]
    return missing + [f"the map of {paths[row]} {why}" for row, why in maps.problems.items() if why]


def _blocks(pictures: Thumbnails, maps: Thumbnails) -> list[tuple[str, Markup]]:
    """Inert scripts: their ids and their JSON; first the large pictures, which start.js needs."""
    blocks = [("picture-large", inert(pictures.large))]
    for kind, small in (("picture", pictures.small), ("map", maps.small)):
        for block, start in enumerate(range(0, len(small), BLOCK)):
            blocks.append((f"{kind}-{block}", inert(small[start : start + BLOCK])))
    return blocks
