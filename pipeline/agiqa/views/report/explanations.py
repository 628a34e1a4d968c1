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

FOLDER, FILE = "explanations", "explanations.json"
MOST_BYTES = 4_000_000  # of reasons and neighbours in the page
REASON = ("aspect", "text", "answer", "percentile", "strength")
NEIGHBOUR = ("path", "mos", "score", "similarity")


@dataclass(frozen=True)
class Explanations:
    """What the page shows of them."""

    images: dict[int, dict[str, Any]] = field(default_factory=dict)  # by row of the page
    overlays: dict[int, Path] = field(default_factory=dict)
    validity: tuple[tuple[str, ...], ...] = ()  # aspect, rho with MOS, with residual, interval
    deletion: tuple[tuple[str, str], ...] = ()  # what, figure
    left_out: int = 0  # images whose reasons the page has no room for
    there: bool = False


def read_explanations(run: Path, rows: Mapping[str, int], important: Sequence[int]) -> Explanations:
    """Read them for the images of the page; empty where there are none.

    Args:
        run: the run's folder.
        rows: of the page, by image path.
        important: rows whose reasons are kept first.

    Raises:
        AgiqaError: damaged, or an overlay's path leaves the folder.
    """
    folder = run / FOLDER
    if not (folder / FILE).is_file():
        return Explanations()
    try:
        found = read_json(folder / FILE, 4 * MOST_JSON)
        by_row = {rows[path]: each for path, each in found["images"].items() if path in rows}
        overlays = {
            row: folder / inner_path(str(each["overlay"]), f"{printable(folder / FILE)}: overlay")
            for row, each in by_row.items()
            if each.get("overlay")
        }
        ordered = [row for row in important if row in by_row]
        images, left = {}, MOST_BYTES
        for row in ordered:
            kept = _of_image(by_row[row], rows)
            left -= len(json.dumps(kept, ensure_ascii=False).encode())
            if left < 0:
                break
            images[row] = kept
        return Explanations(
            images,
            overlays,
            tuple(_validity(each) for each in found.get("reasons_validity") or ()),
            _deletion(found.get("deletion") or {}),
            len(ordered) - len(images),
            True,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgiqaError(
            f"{printable(folder / FILE)}: damaged ({error!r}): run `agiqa explain` again"
        ) from error


def _of_image(each: Mapping[str, Any], rows: Mapping[str, int]) -> dict[str, Any]:
    return {
        "reasons": [[reason.get(key) for key in REASON] for reason in each.get("reasons") or ()],
        "neighbours": [
            [rows.get(near["path"], -1), *(near.get(key) for key in NEIGHBOUR)]
            for near in each.get("neighbours") or ()
        ],
    }


def _validity(each: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = each.get("low"), each.get("high")
    interval = "" if low is None else ends(low, high, 2)
    rhos = (number(each.get(key), 2, signed=True) for key in ("rho_mos", "rho_residual"))
    return (str(each["aspect"]).replace("_", " "), *rhos, interval)


def _deletion(found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The figures of the deletion test that are single numbers."""
    return tuple(
        (str(name).replace("_", " "), number(value, 4) if isinstance(value, float) else str(value))
        for name, value in found.items()
        if isinstance(value, int | float | str) and not isinstance(value, bool)
    )
