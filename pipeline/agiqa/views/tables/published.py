"""Published results: the systems of `published.yaml` as `Result`s, digits as printed."""

from collections.abc import Mapping, Sequence
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
ABOUT = ("method", "source", "said", "selection", "checked")  # of every result
OWN = ("dataset", "target")
OPTIONAL = (*FIGURES, "protocol", "leaked", "splits_sha256", "note", "trained_on")
SELECTIONS = {
    "test": "epoch chosen on the reported side",
    "validation": "epoch chosen on a validation side",
    "untrained": "not trained on this data set",
    "unknown": "how the epoch was chosen was not found",
}
CHECKED = {"read": "read in the authors' code or splits", "printed": "as a table prints it"}


def published_results(path: Path = PUBLISHED) -> list[Result]:
    """Give every published result, in the order of the file.

    Raises:
        AgiqaError: a system or result lacks something, has an unknown key or value, or a figure
            that is no number in quotes (which keep its last zeros).
    """
    try:
        systems = read_yaml(path)
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{path}: damaged ({one_line(error)}): install agiqa again") from error
    if not isinstance(systems, list) or not all(isinstance(system, dict) for system in systems):
        raise AgiqaError(f"{path}: expected a list of systems, each with its keys")
    results = []
    for row, system in enumerate(systems, 1):
        label = f"{path.name}, entry {row}"
        entries = system.get("results")
        is_list = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
        if not is_list or not entries:
            raise AgiqaError(f"{label}: expected results, a list with their keys: add it")
        common = {key: value for key, value in system.items() if key != "results"}
        results += [_result(common | result, label) for result in entries]
    return results


def _result(entry: Mapping[str, Any], label: str) -> Result:
    _check_keys(entry, label)
    figures = {name: _value(entry[name], label) for name in FIGURES if name in entry}
    if not figures:
        raise AgiqaError(f"{label}: expected a figure ({', '.join(FIGURES)}), found none: add it")
    trained_on = tuple(entry.get("trained_on", ()))
    protocol = CROSS if trained_on else str(entry.get("protocol", AS_PUBLISHED))
    splits = str(entry.get("splits_sha256", ""))
    if bool(splits) != (protocol not in (CROSS, AS_PUBLISHED)):
        raise AgiqaError(f"{label}: a protocol of ours and splits_sha256 go together")
    leaked, in_words = _leaked(entry.get("leaked"), label)
    selection = str(entry["selection"])
    holds = {
        LEAKED: leaked > 0,
        TEST_SELECTED: selection == "test" and not trained_on,
        NOT_SEEN: selection == "unknown" and not trained_on,
    }
    return Result(
        method=entry["method"] + ", zero-shot" * (selection == "untrained"),
        dataset=entry["dataset"],
        target=entry["target"],
        protocol=protocol,
        figures=figures,
        ours=False,
        protocol_note="; ".join(filter(None, (entry["said"], SELECTIONS[selection], in_words))),
        source=f"{entry['source']}, {CHECKED[entry['checked']]}",
        note=entry.get("note", ""),
        trained_on=trained_on,
        marks=tuple(mark for mark, held in holds.items() if held),
        splits_sha256=splits,
    )


def _check_keys(entry: Mapping[str, Any], label: str) -> None:
    """Refuse a result that lacks a key, or has an unknown key or word."""
    if missing := [key for key in (*ABOUT, *OWN) if not entry.get(key)]:
        raise AgiqaError(f"{label}: expected {', '.join(missing)}, found none: add it")
    valid = (*ABOUT, *OWN, *OPTIONAL)
    if unknown := sorted(set(entry) - set(valid)):
        raise AgiqaError(f"{label}: unknown key {', '.join(unknown)}; valid: {', '.join(valid)}")
    for key, words in (("selection", SELECTIONS), ("checked", CHECKED)):
        if entry[key] not in words:
            raise AgiqaError(f"{label}: {key} is one of {', '.join(words)}; found {entry[key]!r}")


def _leaked(count: object, label: str) -> tuple[int, str]:
    """Count the test images whose prompt is in training, and say so; -1 where nobody counted."""
    if count is None:
        return -1, ""
    try:
        leaked, total = map(int, str(count).split(" of "))
        if not 0 <= leaked <= total:
            raise ValueError("more than all")
    except ValueError as error:
        raise AgiqaError(
            f"{label}: leaked is such as 0 of 597, found {count!r} ({error})"
        ) from error
    return leaked, f"the prompts of {leaked:,} of {total:,} test images are in training"


def _value(figure: object, label: str) -> Value:
    """Read a figure in quotes, or the two ends of a range."""
    texts: Sequence[object] = figure if isinstance(figure, list) else [figure]
    try:
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("not in quotes")
        printed = tuple(str(text) for text in texts)
        numbers = [float(text) for text in printed]
        if len(numbers) == 1:
            return Value(median=numbers[0], printed=printed)
        low, high = numbers
    except ValueError as error:
        raise AgiqaError(
            f"{label}: expected a number in quotes, or a list of two, found {figure!r} ({error})"
        ) from error
    return Value(ends=(low, high), printed=printed)
