"""`agiqa cache merge`: rows of other ledgers and of packs into this ledger."""

from dataclasses import asdict
from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import as_json, pack_at_hand
from agiqa.cli.output import echo, show
from agiqa.core.errors import AgiqaError


def _all_at_hand(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[Path, ...]:
    return tuple(pack_at_hand(context, option, value) for value in values)


@click.command("merge", cls=Command)
@click.argument("sources", nargs=-1, required=True, callback=_all_at_hand)
@as_json
def command(sources: tuple[Path, ...], as_json: bool) -> None:
    r"""Add the rows of SOURCES to this ledger ($AGIQA_STORE).

    A source is a ledger of another machine, one shelf of it, or a pack (.zarr, .h5; a path or a
    URL). Each row goes under its own fingerprint. Rows that are there already are passed over, also
    those with other numbers, which are counted; damaged rows are left out, and the exit status is
    then 1. After a stop, the same command goes on.

    Vectors whose question holds the image's own prompt are taken from a pack only where the images
    table lies beside it.

    \b
    agiqa cache merge /mnt/gpu-box/ledger
    agiqa cache merge ~/usb/ledger/lmm-0f3a9c1b2d4e5f60 ~/usb/ledger-2
    dvc pull && agiqa cache merge cache/*/*.zarr
    """
    from agiqa.store import default_root
    from agiqa.store.upkeep.merge import merge

    results = merge(sources, default_root())
    if as_json:
        merged = [
            {"source": str(result.source), "vector": result.name, "there": result.rows.present}
            | {key: value for key, value in asdict(result.rows).items() if key != "present"}
            for result in results
        ]
        show({"ledger": str(default_root()), "merged": merged}, as_json)
    for result in results:
        rows, name = result.rows, f" {result.name}" if result.name else ""
        if rows.refused:
            echo(f"{result.source}{name}: nothing taken: {rows.refused}", err=True)
        elif not as_json:
            echo(
                f"{result.source}{name}: {rows.rows} rows, {rows.added} added, {rows.present} "
                "there already"
                + (f", {len(rows.kept)} there with other numbers and kept" if rows.kept else "")
                + (f", {len(rows.damaged)} damaged and left out" if rows.damaged else "")
            )
        for row in rows.damaged:
            echo(f"Damaged in {result.source}{name}: {row}", err=True)
    lost = sum(len(result.rows.damaged) for result in results)
    refused = sum(bool(result.rows.refused) for result in results)
    if lost or refused:
        raise AgiqaError(
            f"{lost} damaged rows and {refused} whole vectors were left out, as listed; all others "
            f"are in {default_root()}. What is left out is computed again by `agiqa extract`."
        )
