"""Hold the figures in the tables of README and docs against what they rest on: `make evidence`.

A comment above a table, or above output in an indented block, names its evidence: files of
docs/results, parts of them, or `published`:

    <!-- evidence: agiqa-3k-grouped-quality.json, scale.json#ray.minutes, published -->

A result file is JSON with a `command` beside what that command printed, or text whose first line is
`$ command`. A figure is a decimal number, a count (`2,982`, `31 of 597`, a cell of digits) or a
whole one before a unit; it is found where a number of the named files has its digits. Of an
evaluated run only the figures of the model that the row or its headings name are taken, and of
several runs those whose protocol and target they name. A digest is found where a file has one that
begins so. What stands in published.yaml has a source by its own rules. An orphan fails. Figures in
running text are held against the files that any comment of the page names; those found nowhere are
listed.

`python docs/making/evidence.py keep RUN docs/results/NAME.json` writes the part of an evaluated run
that a page may quote: commands, split, digests of splits and predictions, figures with intervals.
What was measured before there were result files is from `transcribe PAGE[:LINE] 'COMMAND' FILE`,
which says so, and is counted apart; `settings` is the evidence of limits that the code sets itself.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED, SETTINGS = "published", "settings"
TRANSCRIBED = "not run again since"  # in the second line of what a page had before
UNNAMED = "in others' tables"  # a source in published.yaml that names no publication
KINDS = ("measured", "transcribed (the page against itself)", PUBLISHED, SETTINGS)
NO_FIGURE = re.compile(r"95|\d{4}\.\d{5}")  # an interval's level in %, a number of arXiv
UNITS = r"s|ms|min|h|d|%|x|B|KB|MB|GB|KiB|MiB|GiB|TFLOP|TFLOP/s|images/s|rows/s"
COUNT = r"\d{1,3}(?:,\d{3})+"
FIGURE = re.compile(
    rf"(?<![\w.,:/-])[-−+±]?(?:(?:{COUNT}|\d*)\.\d+(?!\.?\w)"
    rf"|{COUNT}(?![\w.,])|\d+(?= of \d)|(?<=\d of )\d+(?![\w.,])"
    rf"|\d[\d,]*(?= (?:{UNITS})(?:[^\w/]|$)))"
)
DIGEST = re.compile(r"(?<!\w)[0-9a-f]{12,64}(?!\w)")
NUMBER = re.compile(r"(?<![\w.])[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d+)?")
EVIDENCE = re.compile(r"<!-- evidence: (.+) -->")


@dataclass(frozen=True)
class Cell:
    """A cell of a table, or a line of output."""

    text: str
    beside: str  # the row's first cell and the headings above: what its figures are of
    is_label: bool = False  # in the first column

    @property
    def figures(self) -> list[str]:
        """List its figures and digests; a cell of digits is one, but for the first of its row."""
        if self.text.isdecimal() and not self.is_label:
            return [self.text]
        return [*figures_in(self.text), *DIGEST.findall(self.text)]


@dataclass(frozen=True)
class Table:
    """A Markdown table of a page, or output in an indented block."""

    page: str
    line: int  # of its first row, from 1
    evidence: tuple[str, ...]  # names of result files, or `published`
    rows: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """List the cells; of output, the lines that are no command."""
        if not self.rows[0].startswith("|"):
            return [Cell(row, row) for row in self.rows if not row.strip().startswith("$")]
        rows = [[cell.strip(" *") for cell in row.strip("|").split("|")] for row in self.rows]
        head = rows[0] + [""] * max(map(len, rows))
        return [
            Cell(cell, f"{head[0]} {row[0]} {head[column]}", is_label=not column)
            for row in rows
            for column, cell in enumerate(row)
        ]


@dataclass(frozen=True)
class Result:
    """What a result file proves."""

    values: Sequence[float] = ()
    digests: Sequence[str] = ()
    transcribed: bool = False
    about: tuple[str, ...] = ()  # of an evaluated run: its protocol and target
    models: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of one: figures by model


def figures_in(text: str) -> list[str]:
    """List the figures of a text."""
    return [figure for figure in FIGURE.findall(text) if not NO_FIGURE.fullmatch(figure)]


def main(root: Path = ROOT) -> int:
    """Print orphans and counts; give the number of orphans in tables."""
    printed = printed_figures()
    results = {path.name: read(path) for path in sorted((root / "docs/results").iterdir())}
    results |= {PUBLISHED: Result([number(digits) for digits, _ in printed]), SETTINGS: Result()}
    rest: Counter[str] = Counter()  # figures by what they rest on
    orphans = [
        orphan
        for page in pages(root)
        for table in tables_of(page, root)
        for orphan in orphans_of(table, results, rest, root)
    ]
    used = {name.partition("#")[0] for page in pages(root) for name in named_in(page)}
    for name in sorted(set(results) - used - {PUBLISHED, SETTINGS}):
        orphans.append(f"docs/results/{name}: no page names it")
    for page in pages(root):
        names = {PUBLISHED, *(name.partition("#")[0] for name in named_in(page))} & set(results)
        values = [
            value
            for name in names
            for values in (results[name].values, *results[name].models.values())
            for value in values
        ]
        if loose := [figure for figure in prose_figures(page) if not found(figure, values)]:
            print(f"{page.relative_to(root)}: in its text, in no file: {' '.join(loose)}")
    for orphan in orphans:
        print(f"ORPHAN {orphan}")
    unnamed = sum(UNNAMED in source for _, source in printed)
    counts = ", ".join(f"{rest[kind]} {kind}" for kind in KINDS)
    print(
        f"{rest.total()} figures in tables: {counts}; {len(results) - 2} result files, "
        f"{sum(result.transcribed for result in results.values())} of them transcribed; "
        f"{len(printed)} published figures, {unnamed} of them from tables without a name; "
        f"{len(orphans)} orphans"
    )
    return len(orphans)


def orphans_of(
    table: Table, results: Mapping[str, Result], rest: Counter[str], root: Path
) -> Iterator[str]:
    """Yield what of a table rests on nothing, and count what the other figures rest on."""
    where = f"{table.page}:{table.line}"
    if absent := sorted({name.partition("#")[0] for name in table.evidence} - set(results)):
        yield f"{where}: no such evidence: {', '.join(absent)}"
        return
    named = {
        name: read(root / "docs/results" / name.partition("#")[0], name.partition("#")[2])
        if "#" in name
        else results[name]
        for name in table.evidence
    }
    lost = []
    for cell in table.cells:
        proofs = proofs_of(named, cell.beside)
        for figure in cell.figures:
            kind = next((kind for kind in KINDS if proves(proofs.get(kind, ()), figure)), "")
            if not kind and SETTINGS in named:
                kind = SETTINGS
            rest[kind] += bool(kind)
            lost += [figure] * (not kind)
    if lost:
        evidence = ", ".join(table.evidence) or "none: add <!-- evidence: FILE --> above it"
        yield f"{where}: {' '.join(lost)} (evidence: {evidence})"


def proofs_of(named: Mapping[str, Result], beside: str) -> dict[str, list[Result]]:
    """Group what is named by its kind; of evaluated runs only what the words beside name."""
    beside = beside.lower()
    runs = {name: result for name, result in named.items() if result.about}
    for place in (0, 1):  # protocol, target
        fitting = {name: run for name, run in runs.items() if run.about[place] in beside}
        runs = fitting or runs
    model = model_in(beside)
    proofs: dict[str, list[Result]] = {kind: [] for kind in KINDS}
    for name, result in named.items():
        if name in (PUBLISHED, SETTINGS):
            proofs[name].append(result)
        elif not result.about:
            proofs[KINDS[result.transcribed]].append(result)
        elif name in runs:
            values = [*result.values, *result.models.get(model, ())]
            proofs[KINDS[0]].append(Result(values, result.digests))
    return proofs


def model_in(beside: str) -> str:
    """Give the model whose name stands in a row or its headings, the longest; "" for none."""
    from agiqa.core.model_names import MODELS, label

    names = {label(model): model for model in MODELS}
    names |= {name.replace("ridge regression", "ridge"): model for name, model in names.items()}
    names["mixture of experts"] = "moe"
    return names.get(max((name for name in names if name in beside), key=len, default=""), "")


def proves(results: Sequence[Result], figure: str) -> bool:
    """Tell whether one of the results has the figure, or a digest that begins so."""
    if DIGEST.fullmatch(figure):
        return any(known.startswith(figure) for result in results for known in result.digests)
    return any(found(figure, result.values) for result in results)


def pages(root: Path) -> list[Path]:
    """List README, the pages of docs, the changelog and the cards of scorers."""
    own = [root / "README.md", *sorted((root / "docs").glob("*.md")), root / "CHANGELOG.md"]
    return [page for page in [*own, *sorted(root.glob("scorers/*/README.md"))] if page.is_file()]


def tables_of(page: Path, root: Path) -> Iterator[Table]:
    """Yield a page's tables and output, with the evidence that the comment above each names."""
    lines = [*page.read_text("utf-8").splitlines(), ""]
    name = str(page.relative_to(root))
    evidence: tuple[str, ...] = ()
    start, begins = None, "|"
    above = ""  # the last line that was not empty
    for row, line in enumerate(lines):
        output = line.startswith("    ") and EVIDENCE.search(above)
        if start is None and (line.startswith("|") or output):
            start, begins = row, "    " if output else "|"
        elif start is not None and not line.startswith(begins):
            yield Table(name, start + 1, evidence, tuple(lines[start:row]))
            start, evidence = None, ()
        elif match := EVIDENCE.search(line):
            evidence = tuple(name.strip() for name in match[1].split(","))
        elif line.startswith("#"):
            evidence = ()
        above = line if line.strip() else above


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


def read(path: Path, part: str = "") -> Result:
    """Read a result file, or the part of a JSON file under keys with dots between them.

    Raises:
        ValueError: it does not say its command, or has no such part.
    """
    text = path.read_text("utf-8")
    if path.suffix != ".json":
        if not text.startswith("$ "):
            raise ValueError(f"{path}: expected a first line of `$ command`, found none")
        _, _, printed = text.partition("\n")
        values = [number(digits) for digits in NUMBER.findall(printed)]
        return Result(values, DIGEST.findall(printed), TRANSCRIBED in printed.partition("\n")[0])
    tree = json.loads(text)
    if not tree.pop("command", ""):
        raise ValueError(f"{path}: expected the key command, found none")
    for key in filter(None, part.split(".")):
        if not isinstance(tree, dict) or key not in tree:
            raise ValueError(f"{path}: expected the part {part}, found no {key}")
        tree = tree[key]
    run = not part and {"models", "protocol", "target"} <= set(tree)
    models = tree.pop("models") if run else {}
    return Result(
        list(_leaves(tree)),
        DIGEST.findall(json.dumps(tree)),
        about=(tree["protocol"], tree["target"]) if run else (),
        models={name: list(_leaves(figures)) for name, figures in models.items()},
    )


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
    from agiqa.core.regular_files import file_sha256
    from agiqa.core.trees import read_json
    from agiqa.runs.records import read_metrics

    metrics = read_metrics(run, ("dataset", "models", "protocol", "splits", "target"))
    fitted = run.parents[1] if run.parent.name == "targets" else run
    provenance = read_json(fitted / "provenance.json")
    targets = "".join(f" --target {name}" for name in provenance["targets"])
    kept: dict[str, Any] = {
        "command": f"agiqa fit {metrics['dataset']} --protocol {metrics['protocol']}{targets}"
        f"{own_settings(fitted)} -o {fitted}; agiqa evaluate {fitted}",
        "predictions": f"{run}/predictions.csv",
        "predictions_sha256": file_sha256(run / "predictions.csv"),
        "versions": provenance["versions"],
        "git_revision": provenance["git_revision"] or "not kept",
    }
    about = ("dataset", "target", "protocol", "splits", "splits_sha256", "ceiling", "models")
    kept |= {key: metrics[key] for key in about if key in metrics}
    if coverage := metrics.get("coverage"):
        kept["prediction_intervals_in_percent"] = {
            "level": 100 * coverage["level"],
            "hold": 100 * coverage["covered"],
        }
    out.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    print(f"{out}: {out.stat().st_size:,} bytes")


def own_settings(run: Path) -> str:
    """Give a run's settings of features and fit that are not params.yaml's, as options."""
    from agiqa.core.trees import read_yaml

    own, usual = (read_yaml(folder / "params.yaml") for folder in (run, ROOT))
    given = {"fit.target", "fit.protocol"}  # options of their own
    return "".join(
        f" --set {section}.{key}={own[section][key]}"
        for section in ("semantic", "visual", "fit")
        for key, value in usual[section].items()
        if f"{section}.{key}" not in given and own.get(section, {}).get(key, value) != value
    )


def transcribe(place: str, command: str, out: Path) -> None:
    """Write the figures of the table at PAGE:LINE, or of PAGE's text, of an earlier commit."""
    page, _, line = place.partition(":")
    if line:
        (table,) = (one for one in tables_of(ROOT / page, ROOT) if one.line == int(line))
        rows = [" ".join(cell.figures) for cell in table.cells]
    else:
        rows = [" ".join(prose_figures(ROOT / page))]
    head = [f"$ {command}", f"as {page} had them; {TRANSCRIBED}", *filter(None, rows)]
    out.write_text("\n".join(head) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        keep(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["transcribe"]:
        transcribe(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        sys.exit(main() > 0)
