"""`agiqa cache verify`: every checksum, every number."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.cache.texts import count_text, print_wrapped, runs, size_text
from agiqa.cli.lazy import Command
from agiqa.cli.options import Settings, cache, settings
from agiqa.cli.output import echo, print_json

if TYPE_CHECKING:
    from agiqa.store.checks import Report

SHOWN = 3  # bad rows that are named in a line


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
    from agiqa.stage1.pack_comparison import settings_fingerprints
    from agiqa.store import default_root
    from agiqa.store.ledger.shelf_folders import find_shelves
    from agiqa.store.upkeep.stores import PACK, SHELF, choose_store, find_packs
    from agiqa.store.upkeep.verification import KnownFingerprints, verify

    ledger, started, known = default_root(), time.monotonic(), None
    if repair:
        params = settings.read()
        known = KnownFingerprints([cache], [runs], lambda: settings_fingerprints(params))
    reports, chosen = [], [choose_store(store, ledger) for store in stores]
    if not chosen:  # shelves first, since packs are mended from them
        chosen = [(SHELF, folder) for folder in find_shelves(ledger)]
        chosen += [(PACK, path) for path in find_packs([cache])]
    for kind, path in chosen:
        with _quiet():
            report = verify(kind, path, ledger, known)
        reports.append(report)
        if not as_json:
            _print(report)
    if as_json:
        print_json([_tree(report) for report in reports])
    else:
        _print_sum(reports, time.monotonic() - started, repair)
    if not all(report.is_whole or report.is_mended for report in reports):
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


def _print(report: "Report") -> None:
    state = "whole" if report.is_whole else "BAD  "
    if report.is_whole and not report.rows and report.notes:
        state = "other"
    name = report.store.name if report.kind == "shelf" else str(report.store)
    echo(f"{state}  {name}  {count_text(report.rows, 'row')}")
    lines = []
    for finding in report.findings:
        inside = "" if finding.path == report.store else f"{finding.path}: "
        lines.append(f"{inside}{finding.problem}{_rows(finding.image_ids)}")
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"repaired: {line}" for line in report.repaired]
    if report.refused:
        lines.append(f"not repaired: {report.refused}")
    elif report.repaired and not report.is_mended:
        lines.append("still bad: run it again, or move the store away and run `agiqa extract`")
    for line in lines:  # the store's own path stands above them
        shorter = line.replace(f"{report.store}: ", "").replace(f"{report.store}/", "")
        print_wrapped(f"  {shorter}", "    ")


def _print_sum(reports: "list[Report]", seconds: float, repair: bool) -> None:
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
    findings = [finding for report in reports for finding in report.findings]
    if not findings:
        echo("nothing bad")
        return
    rows = sum(len(finding.image_ids) for finding in findings)
    bad = [report for report in reports if not report.is_whole]
    still_bad = sum(not report.is_mended for report in bad)
    end = "; --repair drops bad rows and packs bad packs again"
    if repair:
        end = f"; {count_text(still_bad, 'store')} still bad" if still_bad else "; all repaired"
    echo(
        f"{count_text(len(findings), 'finding')} in {count_text(len(bad), 'store')}, "
        f"{count_text(rows, 'bad row')}{end}"
    )


def _rows(image_ids: tuple[str, ...]) -> str:
    if not image_ids:
        return ""
    more = len(image_ids) - SHOWN
    named = ", ".join(f"{image_id[:12]}…" for image_id in image_ids[:SHOWN])
    return f": {count_text(len(image_ids), 'row')} ({named}{f' and {more} more' * (more > 0)})"


def _tree(report: "Report") -> dict[str, Any]:
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
        "repaired": report.repaired,
        "not_repaired": report.refused,
        "whole_now": report.is_whole or report.is_mended,
    }
