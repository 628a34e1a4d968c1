"""A pack in the other format, `agiqa cache convert`, or as one file, `agiqa cache export`.

Converted, a pack has the same metadata, arrays and checksums to the bit. Converted back it is the
same bytes again, since each format writes the same contents the same way.

Exported, it is safetensors or npz, for people without agiqa:

    vectors/<name>  (N, D), one array a vector
    image_id        of each row: 64 digits in npz, (N, 32) bytes in safetensors, which has no text
    path            of each row, of the images table beside the pack: text, or `paths` in metadata
    metadata        JSON: extractor, names, fingerprints, left out; in safetensors under `agiqa`

No pickle: `np.load` reads the npz with `allow_pickle=False`, its default. Same pack, same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError, one_line
from agiqa.data.datasets.table import DATASET_JSON, read_table
from agiqa.store.files import disk_errors, folder_aside, put_in_place, sync_tree
from agiqa.store.packs.pack import (
    FORMATS,
    FeatureStore,
    is_free,
    open_pack,
    pack_format,
    put_contents,
    read_pack,
)
from agiqa.store.packs.pack_layout import Contents, PackRows, row_blocks
from agiqa.store.row_ids import sources_of

SUFFIXES = (".safetensors", ".npz")
FORMAT = "agiqa-export"


def export(pack: Path, out: Path, force: bool = False) -> tuple[str, ...]:
    """Write the pack as `out` (*.safetensors, *.npz), whole or not at all; the arrays' names.

    AgiqaError where the pack is absent, foreign, newer or damaged, or names collide; the images
    table beside it is damaged or lacks images; `out` is there, without `force`; the disk fails.
    """
    _require_name(out, force)
    store = read_pack(pack)
    if len({name.casefold() for name in store.names}) < len(store.names):
        raise AgiqaError(
            f"{pack}: expected names that differ in more than upper and lower case, since people "
            f"unpack an npz into files, found {', '.join(store.names)}; rename the prompts"
        )
    arrays = {f"vectors/{name}": store.vectors[:, p] for p, name in enumerate(store.names)}
    ids, paths = _ids_and_paths(store)
    metadata = {
        "format": FORMAT,
        "layout": 1,
        "extractor": store.extractor,
        "names": list(store.names),
        "fingerprints": [dict(fingerprint) for fingerprint in store.fingerprints],
        "left_out": sorted(store.left_out),
    }
    with disk_errors("write", out), folder_aside(out) as aside:
        new = aside / out.name
        if out.suffix == ".npz":
            arrays["image_id"] = np.array(ids)
            if paths is not None:
                arrays["path"] = np.array(paths)
            arrays["metadata"] = np.array(json.dumps(metadata))
            np.savez(new, **arrays)  # type: ignore[arg-type]
        else:
            arrays["image_id"] = np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(
                -1, 32
            )
            record = metadata if paths is None else {**metadata, "paths": paths}
            _write_safetensors(new, arrays, {"agiqa": json.dumps(record)})
        sync_tree(aside)
        put_in_place(new, out)
    return tuple(arrays)


def _require_name(out: Path, force: bool) -> None:
    """Refuse a file of another kind, and what is there already unless it may be replaced."""
    if out.suffix not in SUFFIXES:
        raise AgiqaError(
            f"{out}: expected a file named *{' or *'.join(SUFFIXES)}, found {out.suffix!r}; "
            "rename it"
        )
    if out.is_dir() or ((out.exists() or out.is_symlink()) and not force):
        raise AgiqaError(
            f"{out}: expected nothing there, found a {'folder' if out.is_dir() else 'file'}; "
            "name another file" + ("" if out.is_dir() else ", or replace it with --force")
        )


def _ids_and_paths(store: FeatureStore) -> tuple[Sequence[str], list[str] | None]:
    """The image id of each row, and its path if the images table lies beside the pack."""
    folder = store.path.parent
    if not (folder / DATASET_JSON).is_file():
        if store.by_prompt:
            raise AgiqaError(
                f"{store.path}: its rows are of images with their prompts: expected the images "
                f"table beside it that says which ({DATASET_JSON}), found none; copy it there"
            )
        return store.image_ids, None
    first = sources_of(replace(read_table(folder), root=Path()), store.by_prompt)
    if missing := [name for name in store.image_ids if name not in first]:
        raise AgiqaError(
            f"{folder}: expected the images table of {store.path.name}, found one without "
            f"{len(missing)} of its {len(store.image_ids)} images (first: {missing[0]}); run "
            "`agiqa extract` again, or export a copy of the pack that lies elsewhere"
        )
    rows = [first[name] for name in store.image_ids]
    return [row.image_id for row in rows], [row.path.as_posix() for row in rows]


def _write_safetensors(
    file: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write arrays with metadata of one key, since several have no order."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, file, metadata)
    except SafetensorError as error:  # it wraps what the disk said
        raise AgiqaError(
            f"{file.name}: cannot be written ({one_line(error)}); make room and run it again"
        ) from error
    file.chmod(0o644)  # safetensors writes it for its owner alone


def convert_pack(path: Path, target: Path, force: bool = False) -> bool:
    """Write the pack `path` as `target`, in the other format; whether anything was written.

    A target with the same contents is left as it is, a pack with others replaced by `force`;
    nothing else than a pack ever is. Rows pass in blocks, each checked. AgiqaError where the pack
    is absent, foreign, newer, damaged or already of that format; or the disk fails, which leaves
    the target as it was.
    """
    if pack_format(path) is pack_format(target):
        suffix = next(suffix for suffix in FORMATS if suffix != path.suffix)
        raise AgiqaError(
            f"{target}: expected a name that ends in {suffix}, found {target.suffix}, the format "
            f"that {path} has already; copy it as it is, or name a *{suffix}"
        )
    pack = open_pack(path)
    if not is_free(target):
        if _is_same(pack, target):
            return False
        if not force:
            raise AgiqaError(
                f"{target}: expected nothing there, found something that differs from {path}; "
                "replace it with --force, or name another target"
            )
    put_contents(target, Contents(pack.metadata, pack.image_ids, pack))
    return True


def _is_same(pack: PackRows, target: Path) -> bool:
    """Whether the target is a whole pack with the same contents."""
    try:
        existing = open_pack(target)
        return (
            existing.metadata == pack.metadata
            and existing.image_ids == pack.image_ids
            and np.array_equal(existing.row_crc32, pack.row_crc32)
            and all(
                np.array_equal(pack[rows], existing[rows])
                for rows in row_blocks(pack.shape, pack.dtype.itemsize)
            )
        )
    except AgiqaError:  # no pack, or a damaged one
        return False
