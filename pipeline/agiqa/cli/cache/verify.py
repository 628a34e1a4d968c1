"""`agiqa cache verify`: every checksum, every number."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.cache.fields import print_wrapped
from agiqa.cli.cache.figures import count_text, runs, size_text
from agiqa.cli.lazy import Command
from agiqa.cli.options import Settings, cache, settings
from agiqa.cli.output import echo, print_json
from agiqa.core.errors import AgiqaError

if TYPE_CHECKING:
    from agiqa.store.findings import Report
    from agiqa.store.upkeep.lost_shelves import KnownFingerprints

SHOWN = 3  # bad rows that are named in a line


@dataclass
class _Outcome:
    """What became of one store."""

    report: "Report"
    done: list[str] = field(default_factory=list)  # repairs
    refused: str = ""  # why it was not repaired
    is_whole: bool = True  # in the end


@click.command("verify", cls=Command)
@click.argument("stores", nargs=-1, metavar="[STORE]...")
@click.option(
    "--repair",
    is_flag=True,
    help="Drop bad rows of the ledger, or take them from packs; pack bad packs again from "
    "the ledger. Each repair is printed.",
)
@cache
@runs
@settings
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, every row named.")
def command(
    stores: tuple[str, ...],
    repair: bool,
    cache: Path,
    runs: Path,
    settings: Settings,
    as_json: bool,
) -> None:
    r"""Read STOREs whole and check them; by default the whole ledger and all packs in CACHE.

    Checked are the checksum of every segment, chunk and row, every word of metadata, and that every
    number is finite. The exit status is 1 where something is bad, with --repair where
    something stays bad. A shelf that is being written is checked as it stands and not repaired.
    One that has lost its fingerprint gets it back from a pack, a run in RUNS or the settings.

    \b
    agiqa cache verify
    agiqa cache verify cache/demo/nano.zarr lmm-43ba
    agiqa cache verify --repair && agiqa extract demo
    """
    from agiqa.stage1.current_vectors import settings_fingerprints
    from agiqa.store import default_root
    from agiqa.store.upkeep.choice import choose_store
    from agiqa.store.upkeep.lost_shelves import KnownFingerprints
    from agiqa.store.upkeep.verification import all_stores

    ledger, started = default_root(), time.monotonic()
    known = None
    if repair:
        params = settings.read()
        known = KnownFingerprints([cache], [runs], lambda: settings_fingerprints(params))
    selected = [choose_store(store, ledger) for store in stores] or all_stores(ledger, [cache])
    outcomes = []
    for kind, path in selected:
        with _quiet():
            outcome = _verify(kind, path, ledger, known)
        outcomes.append(outcome)
        if not as_json:
            _print(outcome)
    if as_json:
        print_json([_tree(outcome) for outcome in outcomes])
    else:
        _print_sum(outcomes, time.monotonic() - started, repair)
    if not all(outcome.is_whole for outcome in outcomes):
        sys.exit(1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of files that are not the shelf's: they are printed as findings."""
    logger = logging.getLogger("agiqa.store.ledger.segment_rows")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _verify(kind: str, path: Path, ledger: Path, known: "KnownFingerprints | None") -> _Outcome:
    from agiqa.store.upkeep.verification import check, mend

    try:
        outcome = _Outcome(check(kind, path))
    except AgiqaError as error:  # the disk cannot be read now: nothing is to be dropped for that
        return _unreadable(kind, path, error)
    outcome.is_whole = outcome.report.is_whole
    if known and not outcome.is_whole:
        try:
            outcome.done = mend(kind, path, ledger, known)
        except AgiqaError as error:
            outcome.refused = str(error)
        outcome.is_whole = check(kind, path).is_whole
    return outcome


def _unreadable(kind: str, path: Path, error: AgiqaError) -> _Outcome:
    from agiqa.store.findings import Finding, Report

    finding = Finding(path, f"could not be checked: {error}")
    return _Outcome(Report(path, kind, findings=[finding]), is_whole=False)


def _print(outcome: _Outcome) -> None:
    report = outcome.report
    state = "whole" if report.is_whole else "BAD  "
    if report.is_whole and not report.rows and report.notes:
        state = "other"
    echo(f"{state}  {_name(report)}  {count_text(report.rows, 'row')}")
    for finding in report.findings:
        inside = _inside(finding.path, report.store)
        print_wrapped(f"  {inside}{finding.problem}{_rows(finding.image_ids)}", "    ")
    for note in report.notes:
        print_wrapped(f"  note: {_shorter(note, report.store)}", "    ")
    for line in outcome.done:
        print_wrapped(f"  repaired: {_shorter(line, report.store)}", "    ")
    if outcome.refused:
        print_wrapped(f"  not repaired: {_shorter(outcome.refused, report.store)}", "    ")
    elif outcome.done and not outcome.is_whole:
        print_wrapped(
            "  still bad: run it again, or move the store away and run `agiqa extract`", "    "
        )


def _print_sum(outcomes: list[_Outcome], seconds: float, repair: bool) -> None:
    reports = [outcome.report for outcome in outcomes]
    kinds = [report.kind for report in reports]
    rows, segments, chunks, size = (
        sum(getattr(report, name) for report in reports)
        for name in ("rows", "segments", "chunks", "size")
    )
    echo(
        f"checked {count_text(kinds.count('shelf'), 'shelf')} and "
        f"{count_text(kinds.count('pack'), 'pack')}: {count_text(rows, 'row')}, "
        f"{count_text(segments, 'segment')}, {count_text(chunks, 'chunk')}, {size_text(size)} "
        f"in {seconds:.1f} s"
    )
    findings = sum(len(report.findings) for report in reports)
    if not findings:
        echo("nothing bad")
        return
    rows = sum(len(finding.image_ids) for report in reports for finding in report.findings)
    bad = sum(not outcome.is_whole for outcome in outcomes)
    stores = count_text(sum(not report.is_whole for report in reports), "store")
    advice = "" if repair else "; --repair drops bad rows and packs bad packs again"
    outcome_text = ""
    if repair:
        outcome_text = f"; {count_text(bad, 'store')} still bad" if bad else "; all repaired"
    echo(
        f"{count_text(findings, 'finding')} in {stores}, {count_text(rows, 'bad row')}"
        f"{outcome_text}{advice}"
    )


def _name(report: "Report") -> str:
    return report.store.name if report.kind == "shelf" else str(report.store)


def _inside(path: Path, store: Path) -> str:
    """A file as seen from its store; nothing where it is the store."""
    return "" if path == store else f"{path.relative_to(store)}: "


def _shorter(text: str, store: Path) -> str:
    """A line without the store's own path, which stands above it."""
    return text.replace(f"{store}: ", "").replace(f"{store}/", "")


def _rows(image_ids: tuple[str, ...]) -> str:
    if not image_ids:
        return ""
    more = len(image_ids) - SHOWN
    named = ", ".join(f"{image_id[:12]}…" for image_id in image_ids[:SHOWN])
    return f": {count_text(len(image_ids), 'row')} ({named}{f' and {more} more' * (more > 0)})"


def _tree(outcome: _Outcome) -> dict[str, Any]:
    report = outcome.report
    return {
        "store": str(report.store),
        "kind": report.kind,
        "whole": report.is_whole,
        "rows": report.rows,
        "segments": report.segments,
        "chunks": report.chunks,
        "bytes": report.size,
        "findings": [
            {"file": str(finding.path), "what": finding.problem, "rows": list(finding.image_ids)}
            for finding in report.findings
        ],
        "notes": report.notes,
        "repaired": outcome.done,
        "not_repaired": outcome.refused,
        "whole_now": outcome.is_whole,
    }
