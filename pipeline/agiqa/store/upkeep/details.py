"""All that is known of one store without reading its rows: behind `agiqa cache show`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agiqa.store import Fingerprint
from agiqa.store.ledger.segment_folders import LocalSegments
from agiqa.store.ledger.segments import rows_of
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.packs.pack import read_pack_metadata
from agiqa.store.upkeep.stores import (
    SHELF,
    Store,
    find_packs,
    named,
    read_pack_store,
    read_shelf_store,
    runs_of,
)
from agiqa.store.upkeep.users import find_runs


def details(
    kind: str, path: Path, caches: Sequence[Path], runs: Sequence[Path]
) -> tuple[Store, dict[str, Any]]:
    """The store with its users, and what only its kind has: segments, or layout and left out.

    AgiqaError where it is foreign or damaged.
    """
    all_runs, _ = find_runs(runs)
    if kind != SHELF:
        metadata = read_pack_metadata(path)
        pack = read_pack_store(path)
        keys = ("format", "layout", "extractor", "check", "left_out")
        extra = {key: metadata[key] for key in keys if key in metadata}
        return replace(pack, users=runs_of(pack, all_runs)), extra
    sizes = LocalSegments(Shelf.at(path).folder).sizes()
    segments = [{"file": n, "rows": rows_of(n), "bytes": size} for n, size in sorted(sizes.items())]
    packs = [read_pack_store(pack_path) for cache in caches for pack_path in find_packs(cache)]
    packs = [replace(pack, users=runs_of(pack, all_runs)) for pack in packs]
    shelf = named(read_shelf_store(path), packs)
    through = [run for pack in packs if pack.name in shelf.users for run in pack.users]
    users = (*shelf.users, *dict.fromkeys(through))
    return replace(shelf, users=users), {"segments": segments}


def shared_fields(
    fingerprints: Sequence[Fingerprint],
) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The fields that all fingerprints have with one value; and the rest of each."""
    first = fingerprints[0] if fingerprints else {}
    shared = {k: v for k, v in first.items() if all(f.get(k) == v for f in fingerprints)}
    rest: list[dict[str, object]] = [
        {key: value for key, value in fingerprint.items() if key not in shared}
        for fingerprint in fingerprints
    ]
    nested = [key for key in first if all(isinstance(fields.get(key), Mapping) for fields in rest)]
    for key in nested:
        parts = [dict(fields[key]) for fields in rest]  # type: ignore[call-overload]
        inner, own_parts = shared_fields(parts)
        if inner:
            shared[key] = inner
            for fields, part in zip(rest, own_parts, strict=True):
                fields[key] = part
    return shared, rest
