"""Packs of a stranger: whatever lies in one, no reader opens what is outside it, loads code, or
takes more time and memory than stated; each ends in one line."""

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import h5py
import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import PackError, open_pack, read_pack, row_ids_digest, write_pack
from agiqa.store.fingerprint import canonical
from agiqa.store.packs.pack import read_pack_metadata
from agiqa.store.upkeep.export import convert_pack
from agiqa.store.upkeep.stores import read_pack_store
from agiqa.store.upkeep.verification import check_pack
from kit.spoilt_stores import (
    MEGABYTES,
    SECONDS,
    SECRET,
    STRANGE,
    edit,
    replace_by_link,
    replace_by_pipe,
    replace_by_socket,
)
from kit.stored_rows import make_ids, make_vectors

ROWS, WIDTH = 300, 4
IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, 2, WIDTH)
Attack = Callable[..., Any]


def good_pack(path: Path) -> Path:
    prints = [{"extractor": "lmm", "prompt": {"text": name, "layer": 3}} for name in "ab"]
    recorded = {"a": row_ids_digest(IDS)}
    write_pack(path, "nano", ["a", "b"], prints, IDS, VECTORS, ["e" * 64], recorded)
    return path


def relabel(path: Path, metadata: dict[str, Any], text: str | None = None) -> None:
    """Give a pack other metadata, its checksum right, or any text for it."""
    if text is None:
        rest = {key: value for key, value in metadata.items() if key != "check"}
        check = hashlib.sha256(canonical(rest).encode()).hexdigest()
        text = json.dumps({**rest, "check": check})
    if path.suffix == ".zarr":
        group = '{"attributes": %s, "zarr_format": 3, "node_type": "group"}'
        (path / "zarr.json").write_text(group % text)
        return
    with h5py.File(path, "r+") as file:
        del file["metadata"]
        data = np.frombuffer(text.encode(), np.uint8)
        file.create_dataset("metadata", data=data, chunks=data.shape, fletcher32=True)


def wide() -> str:
    return json.dumps({str(key): key for key in range(400_000)})


# --- Zarr


def bomb_in_image_id(pack: Path) -> None:
    """8 GiB of zeros in 8 MB of gzip, with Zarr's own codec and the right shape."""

    def change(tree: dict[str, Any]) -> None:
        tree["shape"], tree["chunk_grid"]["configuration"]["chunk_shape"] = [2**28, 32], [2**28, 32]
        tree["codecs"].append({"name": "gzip", "configuration": {"level": 5}})

    edit(pack / "image_id/zarr.json", change)
    (pack / "image_id/c.0.0").write_bytes(gzip.compress(bytes(1 << 20)) * 64)


def rows_of_nothing(pack: Path, rows: int, width: int = WIDTH) -> None:
    metadata = dict(read_pack_metadata(pack))
    relabel(pack, metadata | {"rows": rows, "width": width})
    for name, tail in (("vectors", [2, width]), ("image_id", [32]), ("row_crc32", [])):
        chunk = min(rows, 256 if name == "vectors" else 65536)

        def change(tree: dict[str, Any], tail: list[int] = tail, chunk: int = chunk) -> None:
            tree["shape"] = [rows, *tail]
            tree["chunk_grid"]["configuration"]["chunk_shape"] = [chunk, *tail]

        edit(pack / name / "zarr.json", change)


def wide_rows(pack: Path) -> None:
    """One row of 4 million numbers that lies nowhere: 2 GiB a chunk of 256."""
    rows_of_nothing(pack, ROWS, 1 << 22)


def same_image_twice(pack: Path) -> None:
    ids = np.frombuffer(b"".join(map(bytes.fromhex, IDS)), np.uint8).reshape(-1, 32).copy()
    ids[1] = ids[0]
    data = ids.tobytes()
    check = google_crc32c.value(data).to_bytes(4, "little")
    (pack / "image_id/c.0.0").write_bytes(data + check)


ZARR = {
    "link for a chunk": lambda p: replace_by_link(p / "vectors/c.0.0.0", SECRET),
    "link for metadata": lambda p: replace_by_link(p / "zarr.json", SECRET),
    "link for an array": lambda p: replace_by_link(p / "vectors", p / "aside"),
    "link to zeros": lambda p: replace_by_link(p / "image_id/c.0.0", "/dev/zero"),
    "link to itself": lambda p: replace_by_link(p / "row_crc32/c.0", "c.0"),
    "loop of folders": lambda p: (p / "more").symlink_to(p),
    "pipe for a chunk": lambda p: replace_by_pipe(p / "image_id/c.0.0"),
    "pipe for metadata": lambda p: replace_by_pipe(p / "zarr.json"),
    "pipe for an array's metadata": lambda p: replace_by_pipe(p / "vectors/zarr.json"),
    "socket for a chunk": lambda p: replace_by_socket(p / "vectors/c.1.0.0"),
    "pipe beside": lambda p: os.mkfifo(p / ".hidden"),
    "gzip bomb": bomb_in_image_id,
    "rows by the billion": lambda p: rows_of_nothing(p, 2**32),
    "rows by the million, wide": wide_rows,
    "codec": lambda p: edit(
        p / "vectors/zarr.json",
        lambda tree: tree.update(codecs=[{"name": "numcodecs.pickle", "configuration": {}}]),
    ),
    "sharding": lambda p: edit(
        p / "vectors/zarr.json", lambda tree: tree["codecs"][0].update(name="sharding_indexed")
    ),
    "transformer": lambda p: edit(
        p / "vectors/zarr.json", lambda tree: tree.update(storage_transformers=[{"name": "x"}])
    ),
    "fill value": lambda p: edit(p / "vectors/zarr.json", lambda tree: tree.update(fill_value=0.0)),
    "key encoding": lambda p: edit(
        p / "vectors/zarr.json",
        lambda tree: tree["chunk_key_encoding"]["configuration"].update(separator="/../"),
    ),
    "consolidated metadata": lambda p: edit(
        p / "zarr.json", lambda tree: tree.update(consolidated_metadata={"metadata": {}})
    ),
    "layout of Zarr v2": lambda p: (p / ".zgroup").write_text('{"zarr_format": 2}'),
    "v2 array": lambda p: (p / "vectors/.zarray").write_text("{}"),
    "deep JSON": lambda p: relabel(p, {}, '{"format": ' + "[" * 10**5 + "]" * 10**5 + "}"),
    "wide JSON": lambda p: relabel(p, {}, wide()),
    "NaN in JSON": lambda p: relabel(p, {}, '{"format": "agiqa-pack", "layout": 1, "rows": NaN}'),
    "endless JSON": lambda p: os.truncate(p / "zarr.json", 1 << 40),
    "endless array metadata": lambda p: os.truncate(p / "image_id/zarr.json", 1 << 40),
    "endless chunk": lambda p: os.truncate(p / "image_id/c.0.0", 1 << 40),
    "image twice": same_image_twice,
}  # fmt: skip


# --- HDF5


def swap(pack: Path, name: str, **options: Any) -> None:
    """Another data set under a pack's name."""
    with h5py.File(pack, "r+") as file:
        del file[name]
        file.create_dataset(name, **options)


def link_in(pack: Path, name: str, link: object) -> None:
    with h5py.File(pack, "r+") as file:
        del file[name]
        file[name] = link


def external_storage(pack: Path) -> None:
    swap(pack, "image_id", shape=(ROWS, 32), dtype="u1", external=[(SECRET, 0, ROWS * 32)])


def virtual(pack: Path, source: str) -> None:
    layout = h5py.VirtualLayout((ROWS, 32), "u1")
    layout[:] = h5py.VirtualSource(source, "image_id", (ROWS, 32))
    with h5py.File(pack, "r+", libver="latest") as file:
        del file["image_id"]
        file.create_virtual_dataset("image_id", layout)


def virtual_of_a_pipe(pack: Path) -> None:
    os.mkfifo(pack.with_name("pipe"))
    virtual(pack, str(pack.with_name("pipe")))


def external_link_to_a_pipe(pack: Path) -> None:
    os.mkfifo(pack.with_name("pipe"))
    link_in(pack, "vectors", h5py.ExternalLink(str(pack.with_name("pipe")), "/x"))


def unknown_filter(pack: Path) -> None:
    """One that HDF5 would look for in $HDF5_PLUGIN_PATH, and load as code."""
    with h5py.File(pack, "r+") as file:
        del file["vectors"]
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((256, 2, WIDTH))
        plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((ROWS, 2, WIDTH))
        h5py.h5d.create(file.id, b"vectors", h5py.h5t.IEEE_F16LE, space, plan)


def bomb_of_hdf5(pack: Path) -> None:
    rows = 2**28  # 8 GiB of zeros
    chunks = (2**20, 32)
    with h5py.File(pack, "r+") as file:
        del file["image_id"]
        ids = file.create_dataset(
            "image_id", (rows, 32), "u1", chunks=chunks, compression="gzip", shuffle=True
        )
        ids[: 2**20] = 0
    relabel(pack, dict(read_pack_metadata(pack)) | {"rows": rows})


def rows_of_nothing_in_hdf5(pack: Path) -> None:
    rows = 2**32
    swap(pack, "image_id", shape=(rows, 32), dtype="u1", chunks=(65536, 32), fletcher32=True)
    swap(pack, "row_crc32", shape=(rows,), dtype="<u4", chunks=(65536,), fletcher32=True)
    swap(pack, "vectors", shape=(rows, 2, 4), dtype="<f2", chunks=(256, 2, 4), fletcher32=True)
    relabel(pack, dict(read_pack_metadata(pack)) | {"rows": rows})


def many_groups(pack: Path) -> None:
    with h5py.File(pack, "r+") as file:
        for number in range(2000):
            file.create_group(str(number))


def dense_attributes(pack: Path) -> None:
    with h5py.File(pack, "r+", libver="latest") as file:
        new = file.create_group("new", track_order=True)
        for number in range(20):
            new.attrs[str(number)] = "x" * 1000
        vectors = file["vectors"][...]
        del file["vectors"]
        options = {"chunks": (256, 2, WIDTH), "fletcher32": True, "fillvalue": np.nan}
        file.create_dataset("vectors", data=vectors, **options).attrs["x"] = np.zeros(10**4)


def references(pack: Path) -> None:
    with h5py.File(pack, "r+") as file:
        found = file["row_crc32"].ref
        del file["image_id"]
        file.create_dataset("image_id", data=np.array([found] * 4, dtype=h5py.ref_dtype))


HDF5 = {
    "external link": lambda p: link_in(p, "vectors", h5py.ExternalLink(SECRET, "/x")),
    "external link to a pipe": external_link_to_a_pipe,
    "soft link": lambda p: link_in(p, "vectors", h5py.SoftLink("/image_id")),
    "soft link to itself": lambda p: link_in(p, "metadata", h5py.SoftLink("/metadata")),
    "external storage": external_storage,
    "virtual data set": lambda p: virtual(p, SECRET),
    "virtual data set of a pipe": virtual_of_a_pipe,
    "unknown filter": unknown_filter,
    "gzip bomb": bomb_of_hdf5,
    "rows by the billion": rows_of_nothing_in_hdf5,
    "many groups": many_groups,
    "attributes": dense_attributes,
    "references": references,
    "texts": lambda p: swap(p, "image_id", data=["x" * 1000] * 9, dtype=h5py.string_dtype()),
    "contiguous": lambda p: swap(p, "row_crc32", data=np.zeros(ROWS, "<u4")),
    "other type": lambda p: swap(p, "vectors", data=np.zeros((ROWS, 2, WIDTH)), chunks=True),
    "group for a data set": lambda p: link_in(p, "vectors", h5py.SoftLink("/")),
    "endless file": lambda p: os.truncate(p, 1 << 40),
    "deep JSON": lambda p: relabel(p, {}, '{"format": ' + "[" * 10**5 + "]" * 10**5 + "}"),
    "wide JSON": lambda p: relabel(p, {}, wide()),
    "a pipe": replace_by_pipe,
    "a device": lambda p: replace_by_link(p, "/dev/zero"),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
}  # fmt: skip
KINDS = [*((".zarr", kind) for kind in ZARR), *((".h5", kind) for kind in HDF5)]


@pytest.mark.parametrize(("suffix", "kind"), KINDS)
def test_no_reader_opens_it(suffix: str, kind: str, attack: Attack, tmp_path: Path) -> None:
    pack = good_pack(tmp_path / f"nano{suffix}")
    (ZARR if suffix == ".zarr" else HDF5)[kind](pack)
    limits = {"seconds": SECONDS, "megabytes": MEGABYTES, "HDF5_PLUGIN_PATH": str(tmp_path)}
    for command in (["export", pack, "-o", tmp_path / "out.npz"], ["merge", pack]):
        outcome = attack("cache", *command, **limits)
        if kind == "endless file":  # whole as far as HDF5 looks; verify looks further
            (tmp_path / "out.npz").unlink(missing_ok=True)
            continue
        assert "nano" in outcome.error
        assert SECRET not in outcome.opened
        assert not any(name.endswith("pipe") for name in outcome.opened)
        assert not (tmp_path / "out.npz").exists()


def test_one_of_them_hides_none_of_the_others(attack: Attack, tmp_path: Path) -> None:
    for number, (suffix, kind) in enumerate(KINDS):
        (tmp_path / f"cache/{number}").mkdir(parents=True)
        pack = good_pack(tmp_path / f"cache/{number}/{kind.replace(' ', '-')}{suffix}")
        (ZARR if suffix == ".zarr" else HDF5)[kind](pack)
    good_pack(tmp_path / "cache/good/good.zarr")
    limits = {"seconds": 2 * SECONDS, "megabytes": MEGABYTES}
    outcome = attack("cache", "verify", "--cache", tmp_path / "cache", **limits)
    assert outcome.status == 1
    assert outcome.out.count("BAD  ") == len(KINDS)
    assert outcome.out.count("whole  ") == 1
    assert SECRET not in outcome.opened
    listed = attack("cache", "ls", "--cache", tmp_path / "cache", "--json", **limits)
    assert len(json.loads(listed.out)) == len(KINDS) + 1


def read_in_every_way(pack: Path, tmp_path: Path) -> list[object]:
    """What each reader gives or says; anything but an AgiqaError fails the test."""

    def rows_by_block() -> object:
        blocks = list(open_pack(pack).blocks())
        assert [name for image_ids, _ in blocks for name in image_ids] == IDS
        return np.concatenate([vectors for _, vectors in blocks])

    readers = (
        lambda: read_pack(pack).vectors,
        rows_by_block,
        lambda: open_pack(pack).image_ids,
        lambda: convert_pack(pack, tmp_path / f"out{'.h5' if pack.is_dir() else '.zarr'}", True),
    )
    results: list[object] = []
    for reader in readers:
        try:
            results.append(reader())
        except AgiqaError as error:
            results.append(error)
    lines = [str(result) for result in results if isinstance(result, AgiqaError)]
    assert not [line for line in lines if "\n" in line or len(line) > 1000]
    check_pack(pack)
    read_pack_store(pack)
    return results


@pytest.mark.parametrize(("suffix", "step"), [(".zarr", 1), (".h5", 5)])
def test_every_field_of_every_type(suffix: str, step: int, tmp_path: Path) -> None:
    """Metadata with a right checksum and a wrong field: refused, or the same rows.

    One function judges them whatever the format; so fewer values do for HDF5, which is slow.
    """
    pack = good_pack(tmp_path / f"nano{suffix}")
    metadata = dict(read_pack_metadata(pack))
    refused = 0
    for field in [*metadata, "stranger"]:
        if field == "check":
            continue
        for value in STRANGE[::step]:
            relabel(pack, metadata | {field: value})
            vectors, by_block, ids, _ = read_in_every_way(pack, tmp_path)
            if isinstance(vectors, AgiqaError):
                refused += 1
                assert isinstance(ids, PackError), (field, value)
            else:
                np.testing.assert_array_equal(vectors, VECTORS, err_msg=f"{field}={value!r}")
                np.testing.assert_array_equal(by_block, VECTORS)
        relabel(pack, {key: value for key, value in metadata.items() if key != field})
        read_in_every_way(pack, tmp_path)
    assert refused > 150 // step
    relabel(pack, metadata)
    np.testing.assert_array_equal(read_pack(pack).vectors, VECTORS)


def test_every_field_of_an_arrays_metadata(tmp_path: Path) -> None:
    pack = good_pack(tmp_path / "nano.zarr")
    for name in ("vectors", "image_id", "row_crc32"):
        path = pack / name / "zarr.json"
        whole = path.read_text()
        for field in json.loads(whole):
            for value in STRANGE:
                edit(path, lambda tree, field=field, value=value: tree.update({field: value}))
                same = json.loads(path.read_text()) == json.loads(whole)
                empty = field in ("attributes", "storage_transformers", "dimension_names")
                if not same and not (empty and not value):
                    with pytest.raises(PackError):
                        open_pack(pack)
                    assert not check_pack(pack).is_whole
        path.write_text(whole)


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", "..", ".", "", "a\nb", "\x1b]0;x\x07", "a\u202eb"]
)
def test_names_lead_nowhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(AgiqaError, match="none with a slash or a control character"):
        write_pack(tmp_path / "a.zarr", "nano", [name], [{}], IDS, VECTORS[:, :1])
    pack = good_pack(tmp_path / "nano.zarr")
    relabel(pack, dict(read_pack_metadata(pack)) | {"names": ["a", name]})
    with pytest.raises(PackError, match="none with a slash or a control character must be"):
        read_pack(pack)


def test_texts_in_a_pack_move_no_cursor(attack: Attack, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    pack = tmp_path / "cache/mine/nano.zarr"
    prints = [{"extractor": evil, "prompt": {"text": evil, evil: [evil]}}]
    write_pack(pack, evil, ["a"], prints, IDS, VECTORS[:, :1])
    for command in (
        ("show", pack), ("show", pack, "--json"), ("ls", "--cache", tmp_path / "cache"),
        ("merge", pack), ("diff", pack), ("verify", pack), ("ls",), ("gc", "--dry-run"),
    ):  # fmt: skip
        outcome = attack("cache", *command)
        assert not {"\x1b", "\x07", "\u202e"}.intersection(outcome.out + outcome.err), command


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_packs_that_dvc_checks_out_as_links_are_packs(suffix: str, tmp_path: Path) -> None:
    """`cache.type symlink`: each file a link into DVC's cache, named by its MD5."""
    pack = good_pack(tmp_path / f"nano{suffix}")
    for path in [pack] if pack.is_file() else [p for p in pack.rglob("*") if p.is_file()]:
        name = hashlib.md5(path.read_bytes()).hexdigest()
        cached = tmp_path / "dvc/files/md5" / name[:2] / name[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        path.rename(cached)
        path.symlink_to(cached)
    np.testing.assert_array_equal(read_pack(pack).vectors, VECTORS)
    assert check_pack(pack).is_whole
    assert check_pack(pack).size > VECTORS.nbytes
