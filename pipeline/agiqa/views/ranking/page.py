"""Fill the template with ranked scores, and write the page."""

import base64
import hashlib
import importlib.metadata
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agiqa.core.errors import printable
from agiqa.core.json_text import json_text
from agiqa.core.progress import track
from agiqa.data.datasets.table import write_whole
from agiqa.runs.score import Score
from agiqa.runs.score_notes import notes, what
from agiqa.views.ranking.thumbnails import SIDES, side_for, thumbnails

DIGITS = 4  # of a score; of a weight one fewer


def write_gallery(
    scores: Sequence[Score],
    run: Path,
    provenance: Mapping[str, Any],
    out: Path,
    workers: int | None = None,
) -> Path:
    """Write the page about scored files.

    Above 15,000 images the page lists all, and shows pictures of the first and the last 7,500.

    Args:
        scores: of files, best first.
        run: the run that made them.
        provenance: the run's own.
        out: the HTML file.
        workers: threads that decode; None takes a few more than there are cores.

    Returns:
        `out`.

    Raises:
        OSError: no place to write.
    """
    count, most = len(scores), SIDES[-1][0]
    side = side_for(min(count, most))
    half = most // 2
    seen = [
        place for place in range(count) if count <= most or min(place, count - 1 - place) < half
    ]
    files = [Path(scores[place].image) for place in seen]
    made = track(thumbnails(files, side, workers), "Thumbnails", total=len(files))
    sources = dict(zip(seen, made, strict=True))
    names = [printable(score.image) for score in scores]
    low, high = float(provenance["mos"]["low"]), float(provenance["mos"]["high"])
    experts = list(provenance["experts"])
    content = {
        "low": low,
        "high": high,
        "experts": experts,
        "target": what(provenance),
        "rows": [
            [
                name,
                round(score.score, DIGITS),
                round(score.spread, DIGITS),
                [round(score.gate[expert], DIGITS - 1) for expert in experts],
                sources.get(place, ""),
                score.trained_on,
                None if score.held_out is None else round(score.held_out, DIGITS),
            ]
            for place, (name, score) in enumerate(zip(names, scores, strict=True))
        ],
    }
    page = _render(
        {
            "version": importlib.metadata.version("agiqa"),
            "count": count,
            "unseen": count - len(seen),
            "notes": notes(scores, provenance)[1:],
            "run": printable(run),
            "dataset": provenance["dataset"],
            "target": provenance["target"],
            "synthetic": provenance["synthetic"],
            "low": f"{low:.2f}",
            "high": f"{high:.2f}",
            # "<" is written otherwise, so that no file name ends the script element.
            "content": json_text(content, compact=True).replace("<", "\\u003c"),
        }
    )
    write_whole(out, page.encode("utf-8"))
    return out


def _render(content: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    here = importlib.resources.files("agiqa.views.ranking")
    style, script = ((here / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    templates = Environment(
        loader=PackageLoader("agiqa.views.ranking", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html.j2").render(
        content,
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """As a Content-Security-Policy names what may stand inline."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
