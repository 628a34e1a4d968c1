"""Ranked scores as one HTML page, with a picture of every image or of the best and the worst."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agiqa.core.errors import printable
from agiqa.core.whole_files import write_whole
from agiqa.runs.score import Score
from agiqa.runs.score_notes import notes, what
from agiqa.views.kit.number import number
from agiqa.views.kit.page import bundle, inert, render
from agiqa.views.kit.thumbnails import TOO_MANY, make_pictures

DIGITS = 4  # of a score; of a weight one fewer
SIDES = (256, 160, 96)  # pixels of the longer side of a thumbnail
SIZE = 27_000_000  # bytes of all thumbnails
SCRIPTS = ("kit/web/dom.js", "kit/web/gallery.js", "ranking/page.js")


def write_gallery(
    scores: Sequence[Score], name: str, provenance: Mapping[str, Any], out: Path
) -> Path:
    """Write the page about all files that the scorer of that name has scored, best first.

    Where not even the smallest pictures of all fit, those of the best and of the worst are there.
    """
    count = len(scores)
    files = [Path(score.image) for score in scores]
    from_the_ends = sorted(range(count), key=lambda row: min(row, count - 1 - row))
    pictures = make_pictures(files, SIZE, from_the_ends, sides=SIDES)
    low, high = float(provenance["mos"]["low"]), float(provenance["mos"]["high"])
    data = {
        "scale": {"low": low, "high": high},
        "experts": list(provenance["experts"]),
        "target": what(provenance),
        "rows": [
            _row(score, picture, provenance)
            for score, picture in zip(scores, pictures.small, strict=True)
        ],
    }
    content = {
        "count": count,
        "unseen": sum(problem == TOO_MANY for problem in pictures.problems.values()),
        "notes": notes(scores, provenance)[1:],
        "run": printable(name),
        "experts": provenance["experts"],
        "dataset": provenance["dataset"],
        "target": provenance["target"],
        "synthetic": provenance["synthetic"],
        "low": number(low, 2),
        "high": number(high, 2),
        "data": inert(data),
    }
    page = render("ranking/page.html.j2", content, ["ranking/page.css"], [bundle(*SCRIPTS)])
    write_whole(out, page.encode("utf-8"))
    return out


def _row(score: Score, picture: str, provenance: Mapping[str, Any]) -> list[Any]:
    """One image, as `page.js` reads it."""
    return [
        printable(score.image),
        round(score.score, DIGITS),
        *(None if end is None else round(end, DIGITS) for end in (score.low, score.high)),
        round(score.disagreement or 0.0, DIGITS),
        [round(score.gate[expert], DIGITS - 1) for expert in provenance["experts"]],
        picture,
        score.trained_on,
        None if score.held_out is None else round(score.held_out, DIGITS),
    ]
