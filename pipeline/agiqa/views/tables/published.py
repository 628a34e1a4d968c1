"""Published results: the systems of `published.yaml` as `Result`s, digits as printed.

The file ships with the package and is taken at its word; tests/views/tables/test_published.py
checks that every entry is complete and has no key or word that is not meant.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.trees import read_yaml
from agiqa.views.tables.grids import (
    AS_PUBLISHED,
    CROSS,
    FIGURES,
    LEAKED,
    NOT_SEEN,
    TEST_SELECTED,
    Result,
    Value,
)

PUBLISHED = Path(__file__).with_name("published.yaml")
SELECTIONS = {
    "test": "epoch chosen on the reported side",
    "validation": "epoch chosen on a validation side",
    "untrained": "not trained on this data set",
    "unknown": "how the epoch was chosen was not found",
}
CHECKED = {"read": "read in the authors' code or splits", "printed": "as a table prints it"}


def published_results() -> list[Result]:
    """Give every published result, in the order of the file.

    Raises:
        AgiqaError: the file is damaged.
    """
    try:
        systems = read_yaml(PUBLISHED)
    except (OSError, ValueError) as error:
        raise AgiqaError(
            f"{PUBLISHED}: damaged ({one_line(error)}): install agiqa again"
        ) from error
    return [_result(system | result) for system in systems for result in system["results"]]


def _result(entry: Mapping[str, Any]) -> Result:
    trained_on = tuple(entry.get("trained_on", ()))
    selection, leaked, in_words = entry["selection"], 0, ""
    if "leaked" in entry:  # test images whose prompt is in training, such as "597 of 597"
        leaked, total = map(int, entry["leaked"].split(" of "))
        in_words = f"the prompts of {leaked:,} of {total:,} test images are in training"
    holds = {
        LEAKED: leaked > 0,
        TEST_SELECTED: selection == "test" and not trained_on,
        NOT_SEEN: selection == "unknown" and not trained_on,
    }
    return Result(
        method=entry["method"] + ", zero-shot" * (selection == "untrained"),
        dataset=entry["dataset"],
        target=entry["target"],
        protocol=CROSS if trained_on else entry.get("protocol", AS_PUBLISHED),
        figures={name: _value(entry[name]) for name in FIGURES if name in entry},
        ours=False,
        protocol_note="; ".join(filter(None, (entry["said"], SELECTIONS[selection], in_words))),
        source=f"{entry['source']}, {CHECKED[entry['checked']]}",
        note=entry.get("note", ""),
        trained_on=trained_on,
        marks=tuple(mark for mark, held in holds.items() if held),
        splits_sha256=str(entry.get("splits_sha256", "")),
    )


def _value(figure: str | list[str]) -> Value:
    """Read a figure, or the two ends of a range."""
    if isinstance(figure, str):
        return Value(median=float(figure), printed=(figure,))
    return Value(printed=tuple(figure))
