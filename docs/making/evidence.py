"""Hold the figures in the tables of README and docs against what they rest on: `make evidence`.

A comment above a table names its evidence, files of docs/results, or `published`:

    <!-- evidence: agiqa-3k-audit.json, published -->

A result file is JSON with a `command` beside what that command printed, or text whose first line is
`$ command`. A figure is a decimal number, or a whole one before a unit; it is found where a number
of the named files has its digits. What stands in published.yaml has a source by its own rules. An
orphan fails. Figures in running text are held against the files that any comment of the page names;
those found nowhere are listed.

`python docs/making/evidence.py keep RUN docs/results/NAME.json` writes the part of an evaluated run
that a page may quote: split, digests of splits and predictions, figures with intervals. What was
measured before there were result files is from `transcribe PAGE[:LINE] 'COMMAND' FILE`, which says
so; `settings` is the evidence of limits that the code sets itself.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs/results"
PUBLISHED, SETTINGS = "published", "settings"
UNNAMED = "in others' tables"  # a source in published.yaml that names no publication
NO_FIGURE = re.compile(r"95|\d{4}\.\d{5}")  # an interval's level in %, a number of arXiv
UNITS = r"s|ms|min|h|d|%|x|B|KB|MB|GB|KiB|MiB|GiB|TFLOP|TFLOP/s|images/s|rows/s"
FIGURE = re.compile(
    r"(?<![\w.,:/-])[-−+±]?(?:(?:\d{1,3}(?:,\d{3})+|\d*)\.\d+(?!\.?\w)"
    rf"|\d[\d,]*(?= (?:{UNITS})(?:[^\w/]|$)))"
)
NUMBER = re.compile(r"(?<![\w.])[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d+)?")
EVIDENCE = re.compile(r"<!-- evidence: (.+) -->")


@dataclass(frozen=True)
class Table:
    """A Markdown table of a page."""

    page: str
    line: int  # of its first row, from 1
    evidence: tuple[str, ...]  # names of result files, or `published`
    rows: tuple[str, ...]

    @property
    def figures(self) -> list[str]:
        """List the figures in its cells."""
        return [figure for row in self.rows for figure in figures_in(row)]


def figures_in(text: str) -> list[str]:
    """List the figures of a text."""
    return [figure for figure in FIGURE.findall(text) if not NO_FIGURE.fullmatch(figure)]


def main(root: Path = ROOT) -> int:
    """Print orphans and counts; give the number of orphans in tables."""
    printed = printed_figures()
    published = [number(digits) for digits, _ in printed]
    unnamed = sum(UNNAMED in source for _, source in printed)
    known = {path.name: numbers_in(path) for path in sorted((root / "docs/results").iterdir())}
    known |= {PUBLISHED: published, SETTINGS: []}
    orphans, figures = [], 0
    used = {name for page in pages(root) for name in named_in(page)}
    for table in (table for page in pages(root) for table in tables_of(page, root)):
        figures += len(table.figures)
        if absent := sorted(set(table.evidence) - set(known)):
            orphans.append(f"{table.page}:{table.line}: no such evidence: {', '.join(absent)}")
            continue
        values = [value for name in table.evidence for value in known[name]]
        lost = [figure for figure in table.figures if not found(figure, values)]
        if lost and SETTINGS not in table.evidence:
            where = ", ".join(table.evidence) or "none: add <!-- evidence: FILE --> above it"
            orphans.append(f"{table.page}:{table.line}: {' '.join(lost)} (evidence: {where})")
    for name in sorted(set(known) - used - {PUBLISHED, SETTINGS}):
        orphans.append(f"docs/results/{name}: no page names it")
    for page in pages(root):
        names = {PUBLISHED, *named_in(page)} & set(known)
        values = [value for name in names for value in known[name]]
        if loose := [figure for figure in prose_figures(page) if not found(figure, values)]:
            print(f"{page.relative_to(root)}: in its text, in no file: {' '.join(loose)}")
    for orphan in orphans:
        print(f"ORPHAN {orphan}")
    print(
        f"{figures} figures in tables, {len(known) - 2} result files; {len(printed)} published "
        f"figures, {unnamed} of them from tables without a name; {len(orphans)} orphans"
    )
    return len(orphans)


def pages(root: Path) -> list[Path]:
    """List README and the pages of docs."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def tables_of(page: Path, root: Path) -> Iterator[Table]:
    """Yield a page's tables, with the evidence that the comment above each names."""
    lines = [*page.read_text("utf-8").splitlines(), ""]
    evidence: tuple[str, ...] = ()
    start = None
    for row, line in enumerate(lines):
        if start is None and line.startswith("|"):
            start = row
        elif start is not None and not line.startswith("|"):
            name = str(page.relative_to(root))
            yield Table(name, start + 1, evidence, tuple(lines[start:row]))
            start, evidence = None, ()
        elif match := EVIDENCE.search(line):
            evidence = tuple(name.strip() for name in match[1].split(","))
        elif line.startswith("#"):
            evidence = ()


def named_in(page: Path) -> list[str]:
    """List the evidence that the comments of a page name."""
    comments = EVIDENCE.findall(page.read_text("utf-8"))
    return [name.strip() for names in comments for name in names.split(",")]


def prose_figures(page: Path) -> list[str]:
    """List the decimal figures of a page outside its tables and code."""
    text = re.sub(
        r"```.*?```|`[^`]*`|\(http[^)]*\)|Python \d\.\d+",
        "",
        page.read_text("utf-8"),
        flags=re.DOTALL,
    )
    lines = [line for line in text.splitlines() if not line.startswith(("|", "    "))]
    return [figure for line in lines for figure in figures_in(line) if "." in figure]


def printed_figures() -> list[tuple[str, str]]:
    """List the published figures with their sources, without which loading fails."""
    from agiqa.views.tables import published_results

    return [
        (digits, result.source)
        for result in published_results()
        for value in result.figures.values()
        for digits in value.printed
    ]


def numbers_in(path: Path) -> list[float]:
    """List all numbers of a result file; ValueError where it does not say its command."""
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        tree = json.loads(text)
        if not tree.get("command"):
            raise ValueError(f"{path}: expected the key command, found none")
        return list(_leaves({key: value for key, value in tree.items() if key != "command"}))
    if not text.startswith("$ "):
        raise ValueError(f"{path}: expected a first line of `$ command`, found none")
    return [number(digits) for digits in NUMBER.findall(text.partition("\n")[2])]


def _leaves(tree: Any) -> Iterator[float]:
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(value)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield float(tree)


def number(digits: str) -> float:
    """Read a number as pages write it: `.885`, `−0.33`, `2,982`."""
    return float(digits.replace("−", "-").replace(",", "").lstrip("±+"))


def found(figure: str, values: Sequence[float]) -> bool:
    """Tell whether some value has the figure's digits."""
    decimals = len(figure.partition(".")[2])
    half = 0.5000001 * 10.0**-decimals
    return any(abs(number(figure) - value) <= half for value in values)


def keep(run: Path, out: Path) -> None:
    """Write what a page may quote of an evaluated run."""
    from agiqa.core.hashing import file_sha256
    from agiqa.runs.records import read_metrics

    metrics = read_metrics(run, ("dataset", "models", "protocol", "splits", "target"))
    kept: dict[str, Any] = {
        "command": f"agiqa evaluate {run}",
        "predictions_sha256": file_sha256(run / "predictions.csv"),
    }
    about = ("dataset", "target", "protocol", "splits", "splits_sha256", "ceiling", "models")
    kept |= {key: metrics[key] for key in about if key in metrics}
    out.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    print(f"{out}: {out.stat().st_size:,} bytes")


def transcribe(place: str, command: str, out: Path) -> None:
    """Write the figures of the table at PAGE:LINE, or of PAGE's text, of an earlier commit."""
    page, _, line = place.partition(":")
    if line:
        (table,) = (one for one in tables_of(ROOT / page, ROOT) if one.line == int(line))
        rows = [" ".join(figures_in(row)) for row in table.rows]
    else:
        rows = [" ".join(prose_figures(ROOT / page))]
    head = [f"$ {command}", f"as {page} had them; not run again since", *filter(None, rows)]
    out.write_text("\n".join(head) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        keep(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["transcribe"]:
        transcribe(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        sys.exit(main() > 0)
