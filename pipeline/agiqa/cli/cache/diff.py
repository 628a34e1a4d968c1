"""`agiqa cache diff`: why vectors would be computed again, field by field."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.cache.texts import count_text, print_difference, print_wrapped, value_text
from agiqa.cli.lazy import Command
from agiqa.cli.options import Settings, as_json, settings
from agiqa.cli.output import echo, print_json
from agiqa.core.errors import some

if TYPE_CHECKING:
    from agiqa.stage1.pack_comparison import Comparison, Missing

SHOWN = 5  # images that are named


@click.command("diff", cls=Command)
@click.argument("store")
@click.argument("other", required=False)
@settings
@as_json
def command(store: str, other: str | None, settings: Settings, as_json: bool) -> None:
    r"""Explain what of STORE would be computed again under the present settings, and why.

    STORE is a pack, a shelf's folder, or the beginning of a shelf's name or digest. Each field of
    the fingerprints that differs is shown with its value there and its value now, and so are
    prompts and images that were added or removed. Rows that the ledger has under the present
    fingerprints count as cached. With OTHER, the two stores are compared with each other.

    \b
    agiqa cache diff cache/demo/nano.zarr
    agiqa cache diff cache/demo/nano.zarr --set semantic.dtype=bfloat16
    agiqa cache diff lmm-43ba lmm-c6ed
    """
    from agiqa.store import default_root
    from agiqa.store.upkeep.stores import choose_store

    kind, path = choose_store(store, default_root())
    if other is not None:
        _print_two(kind, path, *choose_store(other, default_root()), as_json)
        return
    from agiqa.stage1.pack_comparison import compare_with_settings

    params = settings.read()
    present, comparison, missing = compare_with_settings(kind, path, params, default_root())
    if as_json:
        tree = asdict(missing)
        del tree["notes"]
        counts = {"images": tree.pop("images"), "missing": tree.pop("vectors")}
        print_json(_tree(comparison) | counts | tree)
        return
    how = "" if present.by_name or kind != "pack" else f", by what it holds: {path.stem} is no name"
    how = how and f"{how} in the settings"
    echo(f"{path}, against the settings of section {present.section}{how}")
    _print(comparison, ("there", "now"))
    _print_missing(missing)


def _print_two(kind: str, path: Path, other_kind: str, other: Path, as_json: bool) -> None:
    from agiqa.stage1.pack_comparison import compare, image_ids, named_fingerprints, nearest

    first, second = named_fingerprints(kind, path), named_fingerprints(other_kind, other)
    if kind != "pack":  # its vector has no name
        name = nearest(next(iter(first.values())), second)
        first = {name: next(iter(first.values()))}
    elif other_kind != "pack":
        name = nearest(next(iter(second.values())), first)
        second = {name: next(iter(second.values()))}
    comparison = compare(first, second)
    first_ids, second_ids = image_ids(kind, path), image_ids(other_kind, other)
    counts = {
        "both": len(first_ids & second_ids),
        "only_first": len(first_ids - second_ids),
        "only_second": len(second_ids - first_ids),
    }
    if as_json:
        print_json(_tree(comparison) | {"images": counts})
        return
    echo(f"first:  {path}\nsecond: {other}")
    _print(comparison, ("first", "second"))
    echo(
        f"{count_text(counts['both'], 'image')} in both, {counts['only_first']} only in the first, "
        f"{counts['only_second']} only in the second"
    )
    equal = not (comparison.changed or comparison.removed or comparison.added)
    echo("the same vectors" if equal else "different vectors")


def _print(comparison: "Comparison", sides: tuple[str, str]) -> None:
    """The fields that differ: first those that do so alike in every vector, then the rest."""
    fields = list(comparison.changed.values())
    keys = [{_key(field) for field in differences} for differences in fields]
    alike = set.intersection(*keys) if len(keys) > 1 else set()
    if alike:
        echo(f"in {count_text(len(fields), 'vector')} ({', '.join(comparison.changed)})")
        for field in fields[0]:
            if _key(field) in alike:
                print_difference(*field, sides)
    for name, differences in comparison.changed.items():
        own_fields = [field for field in differences if _key(field) not in alike]
        if own_fields:
            echo(f"in {name}")
            for field in own_fields:
                print_difference(*field, sides)
    for name, new in comparison.renamed.items():
        echo(f"renamed: {name} -> {new} (nothing else changed)")
    for group in ("removed", "added", "same"):
        if names := getattr(comparison, group):
            print_wrapped(f"{'unchanged' if group == 'same' else group}: {', '.join(names)}")


def _print_missing(missing: "Missing") -> None:
    for note in missing.notes:
        echo(note)
    if new := missing.new_images:
        print_wrapped(f"not in the pack: {count_text(len(new), 'image')}: {some(new, SHOWN)}")
    if missing.gone_images:
        echo(f"only in the pack: {count_text(missing.gone_images, 'image')}")
    total = sum(missing.vectors.values())
    if not total:
        echo("nothing would be computed")
        return
    missing_counts = {name: count for name, count in missing.vectors.items() if count}
    width = max(map(len, missing_counts))
    echo(f"not in the ledger, of {count_text(missing.images, 'image')}")
    if len(missing_counts) > 2 and len(set(missing_counts.values())) == 1:
        echo(f"  each of {len(missing_counts)} vectors  {max(missing_counts.values())}")
        missing_counts = {}
    for name, count in missing_counts.items():
        echo(f"  {name:<{width}}  {count}")
    if len(missing.missing_images) < missing.images:
        print_wrapped(f"images: {some(missing.missing_images, SHOWN)}")
    if missing.in_pack:
        echo(
            f"the pack has {missing.in_pack} of them: `agiqa cache merge` puts them into the ledger"
        )
    images = count_text(len(missing.missing_images), "image")
    echo(f"{count_text(total, 'vector')} of {images} would be computed")


def _key(field: tuple[str, object, object]) -> tuple[str, str, str]:
    return field[0], value_text(field[1]), value_text(field[2])


def _tree(comparison: "Comparison") -> dict[str, Any]:
    from agiqa.store import ABSENT

    def fields(differences: Any) -> list[dict[str, Any]]:
        names = ("field", "there", "now")
        return [
            {key: value for key, value in zip(names, values, strict=True) if value is not ABSENT}
            for values in differences
        ]

    tree = asdict(comparison)
    changed = {name: fields(differences) for name, differences in comparison.changed.items()}
    return {"unchanged": tree.pop("same"), **tree, "changed": changed}
