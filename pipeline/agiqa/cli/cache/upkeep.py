"""`agiqa cache verify`: every checksum, every number; `gc`: free what nothing uses."""

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.cache.texts import count_text, print_wrapped, runs, size_text
from agiqa.cli.lazy import Command
from agiqa.cli.options import CACHE, FOLDER, RUNS, Settings, cache, list_as_json, settings
from agiqa.cli.output import echo, print_json
from agiqa.core.errors import AgiqaError, some

if TYPE_CHECKING:
    from agiqa.store.upkeep.stores import Orphan
    from agiqa.store.upkeep.verification import Report

SHOWN = 3  # bad rows that are named in a line
UNITS = {"h": 3600.0, "d": 86400.0, "w": 604800.0}


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
def verify(
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
    from agiqa.store.ledger.shelf import find_shelves
    from agiqa.store.upkeep.stores import choose_store, find_packs
    from agiqa.store.upkeep.verification import KnownFingerprints, verify_store

    ledger, started, known = default_root(), time.monotonic(), None
    if repair:
        params = settings.read()
        known = KnownFingerprints([cache], [runs], lambda: settings_fingerprints(params))
    reports, chosen = [], [choose_store(store, ledger) for store in stores]
    if not chosen:  # shelves first, since packs are mended from them
        chosen = [*find_shelves(ledger), *find_packs([cache])]
    for path in chosen:
        with _quiet():
            report = verify_store(path, ledger, known)
        reports.append(report)
        if not as_json:
            _print_report(report)
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


def _print_report(report: "Report") -> None:
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
    named = some([f"{image_id[:12]}…" for image_id in image_ids], SHOWN)
    return f": {count_text(len(image_ids), 'row')} ({named})" if image_ids else ""


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


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    """A time such as 30d, in seconds."""
    match = re.fullmatch(r"(\d+)([hdw])", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no age such as 12h, 30d or 8w")
    return int(match[1]) * UNITS[match[2]]


@click.command("gc", cls=Command)
@click.option("--dry-run", is_flag=True, help="List what would go, with bytes; remove nothing.")
@click.option("--yes", is_flag=True, help="Remove it without asking.")
@click.option(
    "--unused",
    is_flag=True,
    help="Shelves, too, that no pack in CACHE and no run in RUNS uses. Their vectors are lost, and "
    "cost what they cost to compute again.",
)
@click.option(
    "--older-than",
    callback=_seconds,
    default="30d",
    show_default=True,
    metavar="AGE",
    help="With --unused: only shelves that nobody wrote to for so long: 12h, 30d, 8w.",
)
@click.option(
    "--cache",
    "caches",
    type=FOLDER,
    multiple=True,
    help="Folder of packs, whose shelves stay; repeatable, for every project.  [default: cache]",
)
@click.option(
    "--runs",
    type=FOLDER,
    multiple=True,
    help="Folder of runs, whose shelves stay; repeatable.  [default: runs]",
)
@list_as_json
def gc(
    dry_run: bool,
    yes: bool,
    unused: bool,
    older_than: float,
    caches: tuple[Path, ...],
    runs: tuple[Path, ...],
    as_json: bool,
) -> None:
    r"""Free the space of what holds nothing: leftovers of stopped processes, rows kept twice.

    Vectors stay, unless --unused is given: then whole shelves go that nothing in sight uses. The
    ledger is shared by all projects of a user, and only those are in sight whose folders are named.
    What would go is listed first, and removed after a yes. What is being written is passed over.

    \b
    agiqa cache gc --dry-run
    agiqa cache gc --yes
    agiqa cache gc --unused --older-than 8w --cache cache --cache ../other/cache \
        --runs runs --runs ../other/runs
    """
    from agiqa.store import default_root
    from agiqa.store.upkeep.stores import carry_out, plan

    run_folders = runs or ((RUNS,) if RUNS.is_dir() else ())  # nothing may have been fitted yet
    arguments = (default_root(), caches or (CACHE,), run_folders, unused, older_than)
    orphans, kept = plan(*arguments)
    if not as_json:
        _print_plan(orphans, kept)
    elif dry_run or not orphans:
        print_json(_tree_of_items(orphans, kept))
    if not orphans or dry_run:
        return
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise AgiqaError("expected --yes, or a terminal to ask at; nothing was removed")
        click.confirm("Remove all this?", abort=True)
    removed, refused = carry_out(orphans, plan(*arguments)[0])
    if as_json:
        print_json(_tree_of_items(removed, refused))
    else:
        for line in refused:
            echo(f"kept: {line}")
        echo(f"removed {_sum(removed)}")


def _print_plan(orphans: "list[Orphan]", kept: list[str]) -> None:
    width = max((len(size_text(orphan.size)) for orphan in orphans), default=0)
    for orphan in orphans:
        echo(f"{size_text(orphan.size):>{width}}  {orphan.path}: {orphan.why}")
    for line in kept:
        echo(f"kept: {line}")
    echo(f"can go: {_sum(orphans)}" if orphans else "nothing can go")


def _sum(orphans: "list[Orphan]") -> str:
    size = sum(orphan.size for orphan in orphans)
    return f"{count_text(len(orphans), 'item')}, {size_text(size)} ({size:,} bytes)"


def _tree_of_items(orphans: "list[Orphan]", kept: list[str]) -> dict[str, Any]:
    items = [{"path": str(item.path), "why": item.why, "bytes": item.size} for item in orphans]
    return {"items": items, "bytes": sum(item.size for item in orphans), "kept": kept}
