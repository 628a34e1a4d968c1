"""Results of others: no command trusts what stands in the files of an evaluated run."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kit.command import agiqa
from kit.hostile_values import MISSING, WRONG, changed, places


def one_line(command: list[str]) -> str:
    """What a command said: its error, if it ended in one; never more than a line of it."""
    result = agiqa(*command, status=None)
    unhandled = None if isinstance(result.exception, SystemExit) else result.exception
    assert unhandled is None, (command, repr(unhandled))
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == (result.exit_code != 0), result.stderr
    assert "\x1b" not in result.output
    return errors[0] if errors else ""


COMMANDS = (
    ["compare", "RUN"],
    ["report", "RUN", "--cache", "CACHE", "-o", "OUT"],
    ["table", "RUN"],
    ["evaluate", "RUN", "--cache", "CACHE"],  # of a changed provenance.json
)


@pytest.mark.parametrize("file", ["metrics.json", "provenance.json", "predictions.csv"])
def test_no_command_trusts_the_results_of_a_run(
    good_run: Path, workspace: Path, tmp_path: Path, file: str, count: Callable[..., None]
) -> None:
    names = {"RUN": good_run, "CACHE": workspace / "cache", "OUT": tmp_path / "report.html"}
    commands = [[str(names.get(word, word)) for word in command] for command in COMMANDS]
    rng = np.random.default_rng(0)
    path = good_run / file
    text = path.read_text()
    refused = trials = 0
    for spoilt in _spoilt_csv(text) if file.endswith("csv") else _spoilt_json(text):
        path.write_text(spoilt)
        trials += 1
        choices = commands if file == "provenance.json" else commands[:-1]
        refused += bool(one_line(choices[int(rng.integers(len(choices)))]))
    count(trials=trials, refused=refused)
    assert refused
    path.write_text(text)


LACKING = (
    ("metrics.json", ("generators", "*", "srcc")),
    ("metrics.json", ("generators", "*", "mean_score")),
    ("metrics.json", ("generators", "*", "most_a_split")),
    ("metrics.json", ("generators", "*", "least_for_correlation")),
    ("metrics.json", ("gate", "*", "sd")),
    ("metrics.json", ("models", "moe", "srcc", "median")),
    ("metrics.json", ("per_split", "moe", 0, "srcc")),
    ("metrics.json", ("gating", "deviation")),
    ("metrics.json", ("gating",)),
)


@pytest.mark.parametrize(("file", "place"), LACKING)
def test_a_report_does_without_what_its_files_lack(
    good_run: Path, workspace: Path, tmp_path: Path, file: str, place: tuple[str | int, ...]
) -> None:
    path, page = good_run / file, tmp_path / "report.html"
    tree = json.loads(path.read_text())
    if "*" in place:
        name = next(iter(tree[place[0]]))
        place = tuple(name if key == "*" else key for key in place)
    for value in (MISSING, "x"):
        path.write_text(json.dumps(changed(tree, place, value)))
        one_line(["report", str(good_run), "--cache", str(workspace / "cache"), "-o", str(page)])


def _spoilt_json(text: str) -> Iterator[str]:
    tree = json.loads(text)
    rng = np.random.default_rng(1)
    where = list(places(tree))
    for place in [where[number] for number in rng.permutation(len(where))[:40]]:
        value = [*WRONG, MISSING][int(rng.integers(len(WRONG) + 1))]
        yield json.dumps(changed(tree, place, value))
    yield from ("", "[]", "{", "null", '{"models": {}, "models": {}}')


def _spoilt_csv(text: str) -> Iterator[str]:
    lines = text.splitlines(keepends=True)
    columns = lines[0].strip().split(",")
    for number in range(len(columns)):
        for value in _some(["", "inf", "-1", "x", "../../x", "\x1b[2J", "9" * 40], number):
            cells = lines[1].rstrip("\n").split(",")
            cells[number] = value
            yield "".join([lines[0], ",".join(cells) + "\n", *lines[2:]])
        yield "".join(
            ",".join(cell for place, cell in enumerate(line.split(",")) if place != number)
            for line in lines
        )
    yield from ("", lines[0], "".join(lines[:-3]), text + "a,b\n", text.replace("moe", "m"))


def _some(values: list[str], seed: int) -> list[str]:
    """Three of them, another three for each seed; all where the environment says to explore."""
    if "AGIQA_EXPLORE" in os.environ:
        return values
    return list(np.random.default_rng(seed).choice(values, 3, replace=False))
