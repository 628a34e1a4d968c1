"""Why an image got its score, where `agiqa explain` said so: maps, reasons, alike rated images.

`RUN/explanations/explanations.json` holds, by image path, an overlay (a PNG beside it), reasons
with numbers, and the nearest rated images; and for all images how well each reason holds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.trees import MOST_JSON, read_json
from agiqa.data.datasets.table import inner_path
from agiqa.views.kit.number import ends, number
from agiqa.views.report.tables import Cell, ReportRow

FOLDER, FILE = "explanations", "explanations.json"
MOST_BYTES = 4_000_000  # of reasons and neighbours in the page
REASON = ("aspect", "text", "answer", "percentile", "strength")
NEIGHBOUR = ("path", "mos", "score", "similarity")


@dataclass(frozen=True)
class ExplainedImages:
    """What the page shows of them."""

    images: dict[int, dict[str, Any]] = field(default_factory=dict)  # by row of the page
    overlays: dict[int, Path] = field(default_factory=dict)
    validity: tuple[ReportRow, ...] = ()  # an aspect's rho with MOS, with residual, interval
    deletion: tuple[tuple[str, str], ...] = ()  # the deletion test's single numbers: what, figure
    left_out: int = 0  # images whose reasons the page has no room for
    available: bool = False


def read_explanations(
    run: Path, rows: Mapping[str, int], important: Sequence[int]
) -> ExplainedImages:
    """Read them for the page's rows by image path; of the `important` ones reasons are kept first.

    Empty where there are none.

    Raises:
        AgiqaError: damaged, or an overlay's path leaves the folder.
    """
    folder = run / FOLDER
    if not (folder / FILE).is_file():
        return ExplainedImages()
    try:
        record = read_json(folder / FILE, 4 * MOST_JSON)
        by_row = {rows[path]: image for path, image in record["images"].items() if path in rows}
        overlays = {
            row: folder / inner_path(str(image["overlay"]), f"{printable(folder / FILE)}: overlay")
            for row, image in by_row.items()
            if image.get("overlay")
        }
        ordered = [row for row in important if row in by_row]
        images, room = {}, MOST_BYTES
        for row in ordered:
            image = _image(by_row[row], rows)
            room -= len(json.dumps(image, ensure_ascii=False).encode())
            if room < 0:
                break
            images[row] = image
        return ExplainedImages(
            images,
            overlays,
            tuple(map(_validity, record.get("reasons_validity") or ())),
            tuple(
                (str(name).replace("_", " "), number(v, 4) if isinstance(v, float) else str(v))
                for name, v in (record.get("deletion") or {}).items()
                if isinstance(v, int | float | str) and not isinstance(v, bool)
            ),
            len(ordered) - len(images),
            True,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgiqaError(
            f"{printable(folder / FILE)}: damaged ({error!r}): run `agiqa explain` again"
        ) from error


def _image(explained: Mapping[str, Any], rows: Mapping[str, int]) -> dict[str, Any]:
    """What `images.js` reads: lists of REASON, and of a row and NEIGHBOUR."""
    return {
        "reasons": [
            [reason.get(key) for key in REASON] for reason in explained.get("reasons") or ()
        ],
        "neighbours": [
            [rows.get(neighbour["path"], -1), *(neighbour.get(key) for key in NEIGHBOUR)]
            for neighbour in explained.get("neighbours") or ()
        ],
    }


def _validity(aspect: Mapping[str, Any]) -> ReportRow:
    low, high = aspect.get("low"), aspect.get("high")
    rhos = (number(aspect.get(key), 2, signed=True) for key in ("rho_mos", "rho_residual"))
    texts = (*rhos, "" if low is None else ends(low, high, 2))
    return ReportRow(str(aspect["aspect"]).replace("_", " "), "", tuple(map(Cell, texts)))
