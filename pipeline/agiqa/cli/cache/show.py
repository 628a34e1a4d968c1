"""`agiqa cache show`: everything about one store."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.cache.listing import record
from agiqa.cli.cache.texts import age_text, count_text, flat, print_fields, runs, size_text
from agiqa.cli.lazy import Command
from agiqa.cli.options import cache
from agiqa.cli.output import echo, print_json

if TYPE_CHECKING:
    from agiqa.store.upkeep.stores import Store


@click.command("show", cls=Command)
@click.argument("store")
@cache
@runs
@click.option("--json", "as_json", is_flag=True, help="Print it all as JSON.")
def command(store: str, cache: Path, runs: Path, as_json: bool) -> None:
    r"""Tell everything about STORE: a pack, a shelf's folder, or the beginning of a shelf's name.

    The beginning of its digest does as well. Fingerprints are shown in full, what all vectors of a
    pack share once. Whether rows can be read back, only `agiqa cache verify` tells.

    \b
    agiqa cache show cache/demo/nano.zarr
    agiqa cache show lmm-43ba
    agiqa cache show 43ba443d --json
    """
    from agiqa.store import default_root
    from agiqa.store.upkeep.one_store import choose_store, details

    described, extra = details(*choose_store(store, default_root()), [cache], [runs])
    if as_json:
        prints = {"digests": described.digests, "fingerprints": described.fingerprints}
        print_json(record(described) | prints | extra)
        return
    _print(described, extra)


def _print(store: "Store", extra: dict[str, Any]) -> None:
    count = max(1, len(store.fingerprints))
    echo(f"{store.kind} {store.path}")
    echo(
        f"{count_text(store.rows, 'row')} of {count_text(count, 'vector')} x {store.width} "
        f"{store.dtype}, {size_text(store.size)}, written {age_text(store.written)} ago"
    )
    echo(f"used by {', '.join(store.users) or 'nothing in sight'}")
    for writer in store.writers:
        echo(f"being written by {writer}")
    if "segments" in extra:
        echo(f"in {count_text(len(extra['segments']), 'segment')}")
    if left_out := extra.get("left_out"):
        echo(f"left out by --skip-bad: {count_text(len(left_out), 'image')}")
        for image_id in left_out:
            echo(f"  {image_id}")
    echo("damaged rows: unknown until `agiqa cache verify`")
    prints = [flat(fingerprint) for fingerprint in store.fingerprints]
    shared = {k: v for k, v in prints[0].items() if all((k, v) in p.items() for p in prints)}
    if count > 1:
        echo("\nwhat all vectors share")
        print_fields(shared)
    for index, (digest, fields) in enumerate(zip(store.digests, prints, strict=True)):
        name = store.vectors[index] if index < len(store.vectors) else "vector"
        echo(f"\n{name}: {digest}")
        print_fields({k: v for k, v in fields.items() if count == 1 or k not in shared})
