"""`agiqa cache ls`: every store, who uses it, who writes it; `show`: all about one; `diff`: why.

That is why its vectors would be computed again, field by field.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.cache.texts import (
    age_text,
    count_text,
    flat,
    moment_text,
    print_difference,
    print_fields,
    print_wrapped,
    runs,
    size_text,
    value_text,
)
from agiqa.cli.lazy import Command
from agiqa.cli.options import Settings, as_json, cache, list_as_json, settings
from agiqa.cli.output import console, echo, print_json, print_listing

if TYPE_CHECKING:
    from agiqa.stage1.pack_comparison import Comparison
    from agiqa.store.upkeep.stores import Store

COLUMNS = (
    "kind", "store", "vectors", "rows", "width", "dtype", "bytes", "written", "fingerprints",
    "used_by", "written_by", "problem",
)  # fmt: skip


@click.command("ls", cls=Command)
@cache
@runs
@list_as_json
def ls(cache: Path, runs: Path, as_json: bool) -> None:
    r"""List the shelves of the ledger and the packs in CACHE.

    A shelf holds one vector of one extractor, for the images of all data sets; it is named after
    its fingerprint. A pack holds a data set's vectors, and is made from shelves. Shelves that
    another project uses show no user here. Off a terminal the columns are separated by tabs.

    \b
    agiqa cache ls
    agiqa cache ls --json
    agiqa cache ls | cut -f 2,4,7
    """
    from agiqa.store import default_root
    from agiqa.store.upkeep.stores import find_runs, survey

    ledger = default_root()
    all_runs, unreadable = find_runs([runs])
    shelves, packs = survey(ledger, [cache], all_runs)
    for path in unreadable:
        echo(f"{path}: says not what the run read; it is left out", err=True)
    stores = [*shelves, *packs]
    if as_json:
        print_json([record(store) for store in stores])
        return
    print_listing(stores, COLUMNS, _cells, lambda _: print_tables(ledger, shelves, cache, packs))


def record(store: "Store") -> dict[str, Any]:
    """Describe a store for programs, in the order of COLUMNS."""
    return {
        "kind": store.kind,
        "store": str(store.path),
        "vectors": list(store.vectors),
        "rows": store.rows,
        "width": store.width,
        "dtype": store.dtype,
        "bytes": store.size,
        "written": moment_text(store.written),
        "fingerprints": list(store.digests),
        "used_by": list(store.users),
        "written_by": list(store.writers),
        "problem": store.problem,
    }


def _cells(store: "Store") -> list[str]:
    values = record(store).values()
    texts = [",".join(map(str, value)) if isinstance(value, list) else value for value in values]
    return [" ".join(str(text).split()) for text in texts]


def print_tables(
    ledger: Path, shelves: "Sequence[Store]", cache: Path, packs: "Sequence[Store]"
) -> None:
    """Both lists for people; problems and writers stand in lines beneath."""
    out = console(highlight=False)
    total = size_text(sum(shelf.size for shelf in shelves))
    out.print(f"[bold]Ledger[/] {ledger}: {count_text(len(shelves), 'shelf')}, {total}")
    if readable := [shelf for shelf in shelves if not shelf.problem]:
        out.print(_shelf_table(readable, out.width))
    _print_lines(shelves)
    total = size_text(sum(pack.size for pack in packs))
    out.print(f"[bold]Packs[/] in {cache}: {len(packs)}, {total}")
    if readable := [pack for pack in packs if not pack.problem]:
        out.print(_pack_table(readable))
    _print_lines(packs)


def _shelf_table(shelves: "Sequence[Store]", columns: int) -> Any:
    from agiqa.store.upkeep.stores import label

    rows = []
    for shelf in shelves:
        name, _, short = shelf.path.name.rpartition("-")
        datasets = list(dict.fromkeys(user.partition("/")[0] for user in shelf.users))
        rows.append(
            [
                f"{name[:8]}-{short[:8]}",
                ", ".join(shelf.vectors) or label(shelf.fingerprints[0]),
                f"{shelf.rows}",
                f"{shelf.width} {shelf.dtype.replace('float', 'f')}",
                size_text(shelf.size),
                "now" if shelf.writers else age_text(shelf.written),
                _some(datasets),
            ]
        )
    heads = ("shelf", "vector", "rows", "width", "size", "age", "used by")
    widths = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]
    room = max(12, columns - (sum(widths) - widths[1]) - len(widths) - 1)
    for row in rows:
        row[1] = row[1] if len(row[1]) <= room else row[1][: room - 1] + "…"
    return _table(heads, rows)


def _pack_table(packs: "Sequence[Store]") -> Any:
    heads = ("pack", "format", "rows", "P x D", "size", "shelves", "runs")
    rows = [
        [
            pack.name.removesuffix(pack.path.suffix),
            pack.path.suffix[1:],
            f"{pack.rows}",
            f"{len(pack.vectors)} x {pack.width} {pack.dtype.replace('float', 'f')}",
            size_text(pack.size),
            _some([digest[:8] for digest in pack.digests]),
            _some([Path(user).name for user in pack.users]),
        ]
        for pack in packs
    ]
    return _table(heads, rows, folded=("pack", "shelves", "runs"))


def _some(names: list[str]) -> str:
    """The first one, and how many there are beside it."""
    return (names[0] if names else "-") + (f" +{len(names) - 1}" if len(names) > 1 else "")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], folded: Sequence[str] = ()) -> Any:
    """A table whose cells are taken literally."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=0)
    for head in heads:
        table.add_column(
            head,
            justify="right" if head in ("rows", "width", "P x D", "size", "age") else "left",
            no_wrap=head not in folded,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _print_lines(stores: "Sequence[Store]") -> None:
    writers = [writer for store in stores for writer in store.writers]
    for writer in dict.fromkeys(writers):
        busy = count_text(sum(writer in store.writers for store in stores), "shelf")
        echo(f"now: {busy} by {writer}")
    for store in stores:
        if store.problem:
            echo(f"{store.name} ({size_text(store.size)}): {store.problem}")
    echo()


@click.command("show", cls=Command)
@click.argument("store")
@cache
@runs
@click.option("--json", "as_json", is_flag=True, help="Print it all as JSON.")
def show(store: str, cache: Path, runs: Path, as_json: bool) -> None:
    r"""Tell everything about STORE: a pack, a shelf's folder, or the beginning of a shelf's name.

    The beginning of its digest does as well. Fingerprints are shown in full, what all vectors of a
    pack share once. Whether rows can be read back, only `agiqa cache verify` tells.

    \b
    agiqa cache show cache/demo/nano.zarr
    agiqa cache show lmm-43ba
    agiqa cache show 43ba443d --json
    """
    from agiqa.store import default_root
    from agiqa.store.upkeep.stores import choose_store, details

    described, extra = details(choose_store(store, default_root()), [cache], [runs])
    if as_json:
        prints = {"digests": described.digests, "fingerprints": described.fingerprints}
        print_json(record(described) | prints | extra)
        return
    _print_store(described, extra)


def _print_store(store: "Store", extra: dict[str, Any]) -> None:
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


@click.command("diff", cls=Command)
@click.argument("store")
@settings
@as_json
def diff(store: str, settings: Settings, as_json: bool) -> None:
    r"""Explain why vectors of STORE would be computed again under the present settings.

    STORE is a pack, a shelf's folder, or the beginning of a shelf's name or digest. Each field of
    the fingerprints that differs is shown with its value there and its value now, and so are
    prompts that were added or removed. How many rows are missing, `agiqa extract --dry-run` counts.

    \b
    agiqa cache diff cache/demo/nano.zarr
    agiqa cache diff cache/demo/nano.zarr --set semantic.dtype=bfloat16
    """
    from agiqa.stage1.pack_comparison import compare_with_settings
    from agiqa.store import default_root
    from agiqa.store.upkeep.stores import choose_store

    path = choose_store(store, default_root())
    section, comparison = compare_with_settings(path, settings.read())
    if as_json:
        print_json(_tree(comparison))
        return
    echo(f"{path}, against the settings of section {section}")
    _print_comparison(comparison)


def _print_comparison(comparison: "Comparison") -> None:
    """Print the fields that differ: first those that do so alike in every vector, then the rest."""
    fields = list(comparison.changed.values())
    keys = [{_key(field) for field in differences} for differences in fields]
    alike = set.intersection(*keys) if len(keys) > 1 else set()
    if alike:
        echo(f"in {count_text(len(fields), 'vector')} ({', '.join(comparison.changed)})")
        for field in fields[0]:
            if _key(field) in alike:
                print_difference(*field)
    for name, differences in comparison.changed.items():
        own_fields = [field for field in differences if _key(field) not in alike]
        if own_fields:
            echo(f"in {name}")
            for field in own_fields:
                print_difference(*field)
    for name, new in comparison.renamed.items():
        echo(f"renamed: {name} -> {new} (nothing else changed)")
    for group in ("removed", "added", "same"):
        if names := getattr(comparison, group):
            print_wrapped(f"{'unchanged' if group == 'same' else group}: {', '.join(names)}")


def _key(field: tuple[str, object, object]) -> tuple[str, str, str]:
    return field[0], value_text(field[1]), value_text(field[2])


def _tree(comparison: "Comparison") -> dict[str, Any]:
    from agiqa.store import ABSENT

    tree, names = asdict(comparison), ("field", "there", "now")
    for vector, differences in comparison.changed.items():
        fields = [dict(zip(names, values, strict=True)) for values in differences]
        tree["changed"][vector] = [
            {key: value for key, value in field.items() if value is not ABSENT} for field in fields
        ]
    return {"unchanged": tree.pop("same"), **tree}
