"""Published results: `published.yaml` as `Result`s, digits as printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.trees import read_yaml
from agiqa.views.tables.grids import CROSS, FIGURES, Result, Value

PUBLISHED = Path(__file__).with_name("published.yaml")
NEEDED = ("method", "dataset", "target", "protocol", "said", "source")
KNOWN = (*NEEDED, *FIGURES, "note", "trained_on")


def published_results(path: Path = PUBLISHED) -> list[Result]:
    """Every published result, in the order of the file.

    Raises:
        AgiqaError: an entry lacks something, has an unknown key, or a figure that is no number in
            quotes (which keep its last zeros).
    """
    try:
        entries = read_yaml(path)
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{path}: damaged ({one_line(error)}): install agiqa again") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AgiqaError(f"{path}: expected a list of results, each with its keys")
    return [_result(entry, f"{path.name}, entry {row}") for row, entry in enumerate(entries, 1)]


def _result(entry: Mapping[str, Any], where: str) -> Result:
    if missing := [key for key in NEEDED if not entry.get(key)]:
        raise AgiqaError(f"{where}: expected {', '.join(missing)}, found none: add it")
    if unknown := sorted(set(entry) - set(KNOWN)):
        raise AgiqaError(f"{where}: unknown key {', '.join(unknown)}; valid: {', '.join(KNOWN)}")
    if (entry["protocol"] == CROSS) != bool(entry.get("trained_on")):
        raise AgiqaError(f"{where}: trained_on and the protocol {CROSS} go together")
    figures = {name: _value(entry[name], where) for name in FIGURES if name in entry}
    if not figures:
        raise AgiqaError(f"{where}: expected a figure ({', '.join(FIGURES)}), found none: add it")
    return Result(
        method=entry["method"],
        dataset=entry["dataset"],
        target=entry["target"],
        protocol=entry["protocol"],
        figures=figures,
        ours=False,
        said=entry["said"],
        source=entry["source"],
        note=entry.get("note", ""),
        trained_on=tuple(entry.get("trained_on", ())),
    )


def _value(given: object, where: str) -> Value:
    """A figure in quotes, or the two ends of a range."""
    texts: Sequence[object] = given if isinstance(given, list) else [given]
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
            f"{where}: expected a number in quotes, or a list of two, found {given!r} ({error})"
        ) from error
    return Value(ends=(low, high), printed=printed)
