"""The steps' lines as a table for docs/gpu.md, and as the file that the table rests on.

What a step shows is taken out of what it printed, digit by digit: nothing is calculated here.
docs/evidence.md says how a page's figures are held against such a file.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from results import Row

NUMBER = r"-?[\d.]+(?:e[+-]?\d+)?"
PHRASES = [  # a line of output, and what of it is shown
    (re.compile(pattern), phrase)
    for pattern, phrase in (
        (r"=*\s*(\d+ (?:passed|failed|skipped)\b.*?) in [\d.]+s.*", r"\1"),
        (rf"\w+: ({NUMBER}) TFLOP/s measured on a large product.*", r"products \1 TFLOP/s"),
        (r"(text_first|image_first), \d+ prompts.*", r"`\1`:"),
        (
            rf"(ours|reference): ({NUMBER}) images/s.*? (\d+)% of the measured rate"
            rf"(?:.*(peak memory {NUMBER} GB))?.*",
            r"\1 \2 images/s, \3 % of products, \4",
        ),
        (rf"the reference's way takes ({NUMBER}) times as long", r"reference \1 times as long"),
        (rf"(peak memory {NUMBER} GB).*", r"\1"),
        (
            rf"({NUMBER} s), of which ({NUMBER} s) in kernels: (-?\d+)% are gaps",
            r"a batch \1, \2 in kernels, \3 % gaps",
        ),
        (rf"([\w-]+): ({NUMBER} images/s) in training steps", r"\1 \2 in training steps"),
        (
            rf"([\w-]+) at its best batch, (\d+): ({NUMBER} images/s), ({NUMBER} GB)",
            r"\1 at batch \2 \3, \4",
        ),
        (rf"(plain|\d actors?) +({NUMBER}) +({NUMBER}) .*", r"\1 \2 images/s, \3 after the start"),
        (rf"(?:.*/)?([\w-]+)\.zarr: .*\(({NUMBER} images/s)\)", r"\1 \2"),
    )
]
EPOCH = re.compile(rf".*epoch (\d+) of (\d+): loss ({NUMBER}), .*?, ({NUMBER} s)")


def shown(row: Row) -> str:
    """Say what a step shows, in a cell: its figures, or why it has none."""
    if row["status"] == "left out":
        return _cell(str(row.get("why", "")))
    lines = [line.strip() for line in str(row.get("output", "")).splitlines() if line.strip()]
    if row["status"] != 0:
        reason = str(row["status"]) if isinstance(row["status"], str) else ""
        return _cell(f"failed: {reason or (lines or ['it printed nothing'])[-1][:160]}")
    phrases = [match.expand(phrase).rstrip(", ") for line in lines
               for pattern, phrase in PHRASES if (match := pattern.fullmatch(line))]  # fmt: skip
    phrases += [*_epochs(lines), *_json(lines)]
    return _cell("; ".join(phrases).replace(":; ", ": "))


def _cell(text: str) -> str:
    """Make text of anybody's a cell: in one line, no column of its own, no terminal's orders."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return re.sub(r"([|<])", r"\\\1", " ".join(plain.split()))


def _epochs(lines: Sequence[str]) -> Iterator[str]:
    epochs = [match for line in lines if (match := EPOCH.fullmatch(line))]
    if epochs:
        first, last = epochs[0], epochs[-1]
        yield f"loss {first[3]}, at the end {last[3]}; an epoch {last[4]}"


def _json(lines: Sequence[str]) -> Iterator[str]:
    """Yield the figures of `agiqa evaluate --json` and `agiqa compare --json`."""
    for line in lines:
        if not line.startswith("{"):
            continue
        try:
            tree = json.loads(line)
            if "comparisons" in tree:
                for pair in tree["comparisons"]:
                    srcc = pair["figures"]["srcc"]
                    ends = [_number(srcc[key], True) for key in ("image_low", "image_high")]
                    yield f"SRCC {_number(srcc['mean'], True)}{_interval(ends)}"
            elif "models" in tree:
                figures = tree["models"]["moe"]
                ends = [_number(figures["srcc"][key]) for key in ("low", "high")]
                yield f"SRCC {_number(figures['srcc']['median'])}{_interval(ends)}"
                yield f"PLCC {_number(figures['plcc']['median'])}"
        except (ValueError, KeyError, TypeError, RecursionError):
            continue


def _interval(ends: Sequence[str]) -> str:
    """Print an interval, where there is one."""
    return "" if "–" in ends else f" ({' to '.join(ends)})"


def _number(value: Any, signed: bool = False) -> str:
    """Print a correlation as agiqa's tables do."""
    if value is None:
        return "–"
    digits = 4 if signed else 3
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{'+' if signed else ''}.{digits}f}")


def latest(rows: Sequence[Row]) -> list[Row]:
    """Take each step's last line, in the order of their first."""
    return list({(row["stage"], row["step"]): row for row in rows}.values())


def words(machine: Row) -> str:
    """Say on what machine."""
    forms = {"cpus": "{} processors", "card": "{}", "tiny": "tiny sizes"}
    parts = []
    for key, value in machine.items():
        parts += [forms[key].format(value) if key in forms else f"{key} {value}"] * bool(value)
    return _cell(", ".join("no card" if part == "none" else part for part in parts))


def evidence_name(machine: Row) -> str:
    """Name the file that the table rests on, by card."""
    card = str(machine.get("card", "none")).partition(",")[0].lower().replace("nvidia ", "")
    slug = re.sub(r"[^a-z0-9]+", "-", card).strip("-")[:40]
    return "gpu-script.txt" if slug in ("", "none") else f"gpu-{slug}.txt"


def table(rows: Sequence[Row]) -> str:
    """Print the lines as docs/gpu.md takes them: evidence, machine, a row a step."""
    rows = latest(rows)
    if not rows:
        return "no step has run"
    machine = rows[-1]["machine"]
    head = [f"<!-- evidence: {evidence_name(machine)} -->", "", f"{words(machine)}:", "",
            "| stage | step | s | what it shows |", "|---|---|---|---|"]  # fmt: skip
    return "\n".join([*head, *(f"| {' | '.join(cells)} |" for cells in map(_cells, rows))])


def _cells(row: Row) -> tuple[str, ...]:
    return (f"`{_cell(row['stage'])}`", f"`{_cell(row['step'])}`",
            _cell(str(row.get("seconds", "–"))), shown(row))  # fmt: skip


def write_evidence(rows: Sequence[Row], folder: Path, day: str) -> Path:
    """Write the file that docs/results keeps: the command, the machine, the table's rows."""
    rows = latest(rows)
    path = folder / evidence_name(rows[-1]["machine"])
    lines = ["$ bash benchmarks/gpu/run.sh OUT", f"{day}, {words(rows[-1]['machine'])}"]
    lines += ["  ".join(cell.strip("`") for cell in _cells(row)).rstrip() for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
