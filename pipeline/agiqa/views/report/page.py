"""Fill the template with one or several runs, and write the page.

The page is one file. What it draws stands in it as inert JSON; Plotly's own JavaScript (its basic
bundle, in folder plotly) once; the pictures last, in blocks that are decoded when they are shown.
Its Content-Security-Policy names the hash of each of its scripts and forbids everything else, so
not even text from the data could run or fetch something. (Plotly's WebGL traces would need
`unsafe-eval`, which is why `points.js` has a canvas of its own.)
"""

import base64
import hashlib
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.core.json_text import json_text
from agiqa.data.datasets.table import ImagesTable, read_table, write_whole
from agiqa.data.metric_names import number
from agiqa.runs.compare import compare, read_contenders
from agiqa.views.report.columns import image_columns
from agiqa.views.report.content import content, side_by_side
from agiqa.views.report.drawing import figures_beside, plots, run_figures, scale
from agiqa.views.report.explanations import Explanations, read_explanations
from agiqa.views.report.results import Results, average_images, read_results
from agiqa.views.report.thumbnails import LARGE as LARGE_SIDE
from agiqa.views.report.thumbnails import SIDES, Pictures, make_pictures

SIZE = 28_000_000  # bytes of a page: the pictures get what the rest leaves
LARGE = (72, 24)  # worst misses and best hits that are kept larger
PLOTLY = "plotly-basic.min.js"
BLOCK = 128  # pictures in an inert script
SCRIPTS = ("data.js", "card.js", "points.js", "plots.js", "gallery.js", "detail.js", "start.js")


def write_report(runs: Sequence[Path], dataset: Path, out: Path) -> Path:
    """Write the page about an evaluated run, or about several on the same splits.

    Args:
        runs: the runs' folders; the page is about the first, the others stand beside it.
        dataset: `cache/<dataset>`, for prompts and pictures; absent image files leave gaps only.
        out: the HTML file.

    Returns:
        `out`.

    Raises:
        AgiqaError: no such run, a run not evaluated yet, runs of other splits, no images table, or
            no place to write.
    """
    results = [read_results(run) for run in runs]
    comparison = _compared(runs) if len(runs) > 1 else None
    table = read_table(dataset)
    _require_place(out)
    write_whole(out, _page(results, comparison, table, dataset).encode("utf-8"))
    return out


def _require_place(out: Path) -> None:
    """Refuse a place that cannot be written to before the work, which takes minutes, begins."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise AgiqaError(f"cannot write {printable(out)}: {error.strerror}") from error


def _compared(runs: Sequence[Path]) -> dict[str, Any]:
    """The paired comparison; AgiqaError where the runs' splits or protocols differ."""
    if len({run.resolve() for run in runs}) < len(runs):
        raise AgiqaError(f"expected different runs, found {some([printable(r) for r in runs])}")
    return compare(read_contenders([str(run) for run in runs]))


def _page(
    runs: Sequence[Results],
    comparison: dict[str, Any] | None,
    table: ImagesTable,
    dataset: Path,
) -> str:
    """Everything but the pictures, then the pictures that still fit."""
    images = [average_images(run) for run in runs]
    low, high = scale(runs[0], images[0])
    important = _by_error(images[0])
    rows = {path: row for row, path in enumerate(images[0]["path"])}
    explained = read_explanations(runs[0].folder, rows, important)
    scripts = [_own(PLOTLY, "plotly"), *(_own(name) for name in SCRIPTS)]
    drawn = [run_figures(run, each) for run, each in zip(runs, images, strict=True)]
    beside = figures_beside(runs, comparison) if comparison else {}
    written = _json(
        {
            "truth": runs[0].truth,
            "low": low,
            "high": high,
            "columns": image_columns(runs, images, table),
            "figures": [plots(each) for each in drawn],
            "beside": plots(beside),
            "explanations": {str(row): each for row, each in explained.images.items()},
        }
    )
    left = SIZE - len(written.encode()) - sum(len(each.encode()) for each in scripts) - 300_000
    pictures, maps = _pictures(table, images[0], explained, important, left)
    reasons = [f"{images[0]['path'][row]} {why}" for row, why in pictures.problems.items()]
    reasons += [
        f"the map of {images[0]['path'][row]} {why}" for row, why in maps.problems.items() if why
    ]
    page: str = _template().render(
        content(runs[0], table, dataset, len(images[0]))
        | {
            "low": number(low, 2),
            "high": number(high, 2),
            "runs": [run.name for run in runs],
            # A run that has more experts than the first has places for their figures, too.
            "figures": {name: each for run in reversed(drawn) for name, each in run.items()},
            "side": side_by_side(comparison) | {"figures": beside} if comparison else None,
            "explained": explained,
            "missing": reasons,
            "missing_some": some([printable(each) for each in reasons]),
            "pictures": pictures,
            "style": _own("report.css"),
            "data": written,
            "plotly": scripts[0],
            "scripts": scripts[1:],
            "hashes": " ".join(map(_hash, scripts)),
            "blocks": _blocks(pictures, maps),
        }
    )
    return page


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("agiqa.views.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html.j2")


def _pictures(
    table: ImagesTable,
    images: pd.DataFrame,
    explained: Explanations,
    important: Sequence[int],
    budget: int,
) -> tuple[Pictures, Pictures]:
    """The images' pictures, and those of their maps."""
    known = set(table.frame["path"])
    where: list[Path | str] = []
    for path in images["path"]:
        if path not in known:
            where.append("is not in the data set any more")
        elif table.root is None:
            where.append("is not on this machine")
        else:
            where.append(table.root / path)
    large = [*important[: LARGE[0]], *important[::-1][: LARGE[1]]]
    maps: list[Path | str] = [explained.overlays.get(row, "") for row in range(len(images))]
    reserve = min(budget // 8, 2_200_000)  # of the large ones
    share = 1 - 0.5 * len(explained.overlays) / max(1, len(images))
    pictures = make_pictures(where, int((budget - reserve) * share), important, large)
    if not explained.overlays:
        return pictures, Pictures(0, [], {}, {})
    rest = budget - reserve - sum(map(len, pictures.small))
    return pictures, make_pictures(maps, rest, important, what="maps", sides=(LARGE_SIDE, *SIDES))


def _blocks(pictures: Pictures, maps: Pictures) -> list[tuple[str, str]]:
    """Inert scripts: their ids and their JSON; first the large pictures, which start.js needs."""
    made = []
    for kind, small in (("picture", pictures.small), ("map", maps.small)):
        for place, start in enumerate(range(0, len(small), BLOCK)):
            made.append((f"{kind}-{place}", _json(small[start : start + BLOCK])))
    large = {str(row): each for row, each in pictures.large.items()}
    return [("picture-large", _json(large)), *made]


def _json(value: Any) -> Markup:
    """JSON that may stand in a script: no `<` at all, so no tag can begin or end in it."""
    return Markup(json_text(value, compact=True).replace("<", "\\u003c"))


def _own(name: str, folder: str = "page") -> Markup:
    """One of the page's own scripts, its style, or Plotly's."""
    return Markup((files("agiqa.views.report") / folder / name).read_text("utf-8"))


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _by_error(images: pd.DataFrame) -> list[int]:
    """Rows, the worst miss first."""
    order = images["error"].abs().sort_values(ascending=False, kind="stable").index
    return [int(row) for row in order]
