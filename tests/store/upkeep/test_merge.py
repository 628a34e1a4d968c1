"""Rows of shelves, packs and whole ledgers into this one: each once, never under a wrong row id."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable, write_table
from agiqa.store import (
    PackError,
    Shelf,
    add_pack,
    digest,
    row_ids_digest,
    write_pack,
)
from agiqa.store.ledger import segments
from agiqa.store.ledger.segments import LocalSegments
from agiqa.store.ledger.shelf import Description
from agiqa.store.packs import pack_layout
from agiqa.store.row_ids import Source, row_id
from agiqa.store.upkeep.merge import Merged, add_vector, merge, require_fits
from kit.stored_rows import add_rows, flip, flip_rows, make_ids, make_vectors, right_rows

NAMES = ["quality", "coherence"]
PRINTS = [{"extractor": "nano", "prompt": name} for name in NAMES]
WIDTH, ROWS = 8, 600  # three chunks
IMAGES, NARROW = 20, 4  # of other ledgers
IDS = [f"{row:064x}" for row in range(IMAGES)]


@pytest.fixture(params=[".zarr", ".h5"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fill(root: Path, ids: list[str], vectors: np.ndarray, rank: int = 0) -> Shelf:
    return add_rows(Shelf.open(root, PRINTS[0], WIDTH, rank=rank), ids, vectors)


def test_missing_rows_are_added_once(tmp_path: Path) -> None:
    """From two segments with rows in common, to a shelf that has some."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    fill(tmp_path / "a", ids[:400], vectors[:400])
    source = fill(tmp_path / "a", ids[300:], vectors[300:], rank=2)
    target = fill(tmp_path / "b", ids[100:150], vectors[100:150])
    found = add_vector(source, tmp_path / "b")
    assert (found.rows, found.added, found.present, found.kept) == (ROWS, ROWS - 50, 50, ())
    again = add_vector(source, tmp_path / "b")
    assert (again.added, again.present, again.damaged) == (0, ROWS, ())
    assert np.array_equal(Shelf.at(target.folder).read(ids), vectors)


def test_damaged_rows_are_left_out_and_named(tmp_path: Path) -> None:
    """A flipped bit takes its row, unless the target has it."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    source = fill(tmp_path / "a", ids, vectors)
    target = fill(tmp_path / "b", ids[256:266], vectors[256:266])
    (path,) = (source.folder / "segments").glob("*.safetensors")
    flip_rows(path, WIDTH, 3, 260, 599)
    found = add_vector(source, tmp_path / "b")
    assert found.damaged == (ids[3], ids[599])
    assert (found.added, found.present) == (ROWS - 12, 10)
    assert np.array_equal(target.read(ids[4:599]), vectors[4:599])


@pytest.mark.parametrize(("width", "dtype"), [(9, "float16"), (8, "float32")])
def test_another_width_or_dtype_is_one_line(tmp_path: Path, width: int, dtype: str) -> None:
    def fit(width: int, dtype: str) -> None:
        require_fits(tmp_path, [(Path("there.zarr"), Description(PRINTS[0], width, dtype))])

    fit(width, dtype)  # nothing is there yet
    Shelf.open(tmp_path, PRINTS[0], WIDTH)
    fit(WIDTH, "float16")
    message = rf"there\.zarr: .* width 8, float16, .* found width {width}, {dtype}; one"
    with pytest.raises(AgiqaError, match=message):
        fit(width, dtype)


@pytest.mark.parametrize("done", [0, 1, 7, 20])
def test_what_stops_in_the_middle_loses_nothing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """That a segment survives a kill, tests/faults show; here, that the next call goes on."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    source, target = (
        fill(tmp_path / "a", ids, vectors),
        Shelf.open(tmp_path / "b", PRINTS[0], WIDTH),
    )
    monkeypatch.setattr(segments, "ROWS_A_SEGMENT", 20)  # 30 segments
    write, written = LocalSegments.write, itertools.count()

    def fail(folder: LocalSegments, *given: Any) -> None:
        if next(written) >= done:
            raise AgiqaError("stopped")
        write(folder, *given)

    with monkeypatch.context() as patch:
        patch.setattr(LocalSegments, "write", fail)
        with pytest.raises(AgiqaError, match="stopped"):
            add_vector(source, tmp_path / "b")
    there = right_rows(target, ids, vectors)
    assert len(there) == 20 * done
    found = add_vector(source, tmp_path / "b")
    assert (found.added, found.present) == (ROWS - len(there), len(there))
    assert np.array_equal(Shelf.at(target.folder).read(ids), vectors)


@pytest.fixture
def pack(tmp_path: Path, suffix: str) -> Path:
    path = tmp_path / f"nano{suffix}"
    write_pack(path, "nano", NAMES, PRINTS, make_ids(ROWS), make_vectors(ROWS, 2, WIDTH))
    return path


def read(root: Path, place: int, ids: list[str]) -> np.ndarray:
    return Shelf.open(root, PRINTS[place], WIDTH).read(ids)


@pytest.mark.parametrize("block_bytes", [1, 64 << 20])
def test_a_pack_gives_the_ledger_back(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    """Chunk by chunk or all at once, and a second time nothing."""
    monkeypatch.setattr(pack_layout, "BLOCK_BYTES", block_bytes)
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, 2, WIDTH)
    found = add_pack(pack, tmp_path / "ledger")
    assert list(found) == NAMES
    for place, name in enumerate(NAMES):
        assert (found[name].rows, found[name].added, found[name].damaged) == (ROWS, ROWS, ())
        assert np.array_equal(read(tmp_path / "ledger", place, ids), vectors[:, place])
    again = add_pack(pack, tmp_path / "ledger")
    assert [(each.added, each.present) for each in again.values()] == [(0, ROWS)] * 2


def test_other_numbers_are_kept_and_counted(pack: Path, tmp_path: Path) -> None:
    ids, other = make_ids(ROWS), make_vectors(ROWS, WIDTH, seed=5)
    shelf = Shelf.open(tmp_path / "ledger", PRINTS[1], WIDTH)
    add_rows(shelf, ids[:3], other[:3])
    found = add_pack(pack, tmp_path / "ledger")
    assert (found["quality"].added, found["quality"].kept) == (ROWS, ())
    assert (found["coherence"].added, found["coherence"].kept) == (ROWS - 3, tuple(ids[:3]))
    assert np.array_equal(read(tmp_path / "ledger", 1, ids[:3]), other[:3])


def test_a_flipped_bit_costs_its_row_alone(pack: Path, tmp_path: Path) -> None:
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, 2, WIDTH)
    file = pack / "vectors/c.1.0.0" if pack.is_dir() else pack
    flip(file, file.read_bytes().index(vectors[300].tobytes()) + 1)
    found = add_pack(pack, tmp_path / "ledger")
    assert {each.damaged for each in found.values()} == {(ids[300],)}
    good = ids[:300] + ids[301:]
    kept = np.delete(vectors, 300, axis=0)
    assert np.array_equal(read(tmp_path / "ledger", 0, good), kept[:, 0])
    assert Shelf.open(tmp_path / "ledger", PRINTS[0], WIDTH).ids() == set(good)


@pytest.mark.parametrize("suffix", [".zarr"])
@pytest.mark.parametrize("content", [None, b"", b"half"])
def test_a_missing_or_cut_chunk_is_never_read_as_zeros(
    pack: Path, tmp_path: Path, content: bytes | None
) -> None:
    chunk = pack / "vectors/c.2.0.0"
    chunk.unlink() if content is None else chunk.write_bytes(content)
    found = add_pack(pack, tmp_path / "ledger")
    assert found["quality"].damaged == tuple(make_ids(ROWS)[512:])
    assert found["quality"].added == 512


def test_only_what_is_wanted_is_taken(pack: Path, tmp_path: Path) -> None:
    ids = make_ids(ROWS)
    wanted = {digest(PRINTS[1]): {ids[5], ids[590], "f" * 64}}
    found = add_pack(pack, tmp_path / "ledger", wanted=wanted, rank=3)
    assert (found["quality"].added, found["coherence"].added) == (0, 2)
    there = [path.name for path in (tmp_path / "ledger").iterdir()]
    assert there == [Shelf.open(tmp_path / "ledger", PRINTS[1], WIDTH).folder.name]
    shelf = Shelf.open(tmp_path / "ledger", PRINTS[1], WIDTH)
    assert shelf.ids() == {ids[5], ids[590]}
    assert np.array_equal(shelf.read([ids[590]]), make_vectors(ROWS, 2, WIDTH)[590:591, 1])


def test_a_vector_that_asks_for_no_prompt_is_the_images(tmp_path: Path, suffix: str) -> None:
    """In a pack of rows by image and prompt; the images table says which image a row is of."""
    images = make_ids(3)
    sources = [Source(images[row % 3], Path("a.png"), f"a {row}") for row in range(4)]
    rows, vectors = [source.row_id for source in sources], make_vectors(4, 2, WIDTH)
    path, ledger = tmp_path / f"n{suffix}", tmp_path / "ledger"
    recorded = {"coherence": row_ids_digest(rows)}
    write_pack(path, "nano", NAMES, PRINTS, rows, vectors, row_ids=recorded)
    alone = add_pack(path, ledger)
    assert "no images table says which" in alone["quality"].refused
    assert (alone["quality"].added, alone["coherence"].added) == (0, 4)
    found = add_pack(path, ledger, sources=sources)
    assert [(each.added, each.present) for each in found.values()] == [(3, 0), (0, 4)]
    assert np.array_equal(read(ledger, 0, images), vectors[:3, 0])
    assert np.array_equal(read(ledger, 1, rows), vectors[:, 1])


@pytest.mark.parametrize("recorded", [True, False])
def test_a_row_for_each_image_where_prompts_are_asked_for_is_refused(
    tmp_path: Path, suffix: str, recorded: bool
) -> None:
    path, ids = tmp_path / f"n{suffix}", make_ids(4)
    digests = {"coherence": row_ids_digest(make_ids(4, "with prompts "))} if recorded else {}
    prints = [PRINTS[0], PRINTS[1] | ({} if recorded else {"prompt": "Is it {image_prompt}?"})]
    write_pack(path, "nano", NAMES, prints, ids, make_vectors(4, 2, WIDTH), row_ids=digests)
    with pytest.raises(PackError, match=r"n\.\w+: expected a row for each image and prompt, found"):
        add_pack(path, tmp_path / "ledger")


def test_what_is_no_whole_pack_is_one_line_and_changes_nothing(pack: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    narrow = tmp_path / f"narrow{pack.suffix}"
    ids, vectors = ["a" * 64], np.ones((1, 1, 3), np.float16)
    write_pack(narrow, "nano", NAMES[:1], PRINTS[:1], ids, vectors)
    add_pack(narrow, ledger)
    with pytest.raises(AgiqaError, match=r"width 3, float16, as .* found width 8, float16"):
        add_pack(pack, ledger)
    with pytest.raises(PackError, match=r"absent\.h5: expected a pack, found nothing"):
        add_pack(tmp_path / "absent.h5", ledger)
    if pack.is_dir():
        (pack / "image_id/c.0.0").write_bytes(b"nothing")
        with pytest.raises(PackError, match="image_id whose chunk 0 is missing or cut"):
            add_pack(pack, tmp_path / "new")
        (pack / "row_crc32/zarr.json").write_text("{}")
        with pytest.raises(PackError, match=r"row_crc32/zarr\.json zarr_format is null"):
            add_pack(pack, tmp_path / "new")
        assert not (tmp_path / "new").exists()


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float16)


def fill_ledger(root: Path, prompt: str, rows: slice, seed: int = 0, width: int = NARROW) -> Path:
    shelf = Shelf.open(root, {"extractor": "lmm", "prompt": prompt}, width)
    with shelf.writer() as writer:
        writer.add(IDS[rows], numbers(seed, IMAGES, width)[rows])
    return shelf.folder


def counts(found: list[Merged]) -> list[tuple[int, int, int, int]]:
    return [
        (each.rows.added, each.rows.present, len(each.rows.kept), len(each.rows.damaged))
        for each in found
    ]


def test_ledgers_of_two_machines_and_a_single_shelf_become_one(tmp_path: Path) -> None:
    fill_ledger(tmp_path / "gpu-1", "q", slice(0, 10))
    fill_ledger(tmp_path / "gpu-1", "r", slice(0, 5), seed=1)
    shelf = fill_ledger(tmp_path / "gpu-2", "q", slice(5, 20))
    fill_ledger(tmp_path / "gpu-2", "s", slice(0, 5))
    pixels = tmp_path / "gpu-1" / "pixels-0123456789abcdef"
    pixels.mkdir()
    (pixels / "fingerprint.json").write_text('{"layout": 1, "fingerprint": {}}')
    (pixels / "pixels.u8").write_bytes(b"")
    here = tmp_path / "here"
    found = merge([tmp_path / "gpu-1", shelf], here)
    assert sorted(counts(found)) == [(5, 0, 0, 0), (10, 0, 0, 0), (10, 5, 0, 0)]
    both = Shelf.open(here, {"extractor": "lmm", "prompt": "q"}, NARROW)
    assert np.array_equal(both.read(IDS), numbers(0, IMAGES, NARROW))
    assert len(list(here.iterdir())) == 2
    assert [added for added, *_ in counts(merge([tmp_path / "gpu-1", shelf], here))] == [0, 0, 0]


def test_widths_that_differ_stop_everything_before_it_begins(tmp_path: Path) -> None:
    """Between a source and the ledger, and between two sources."""
    good, wide = tmp_path / "good", tmp_path / "wide"
    fill_ledger(good, "a", slice(0, 3))
    fill_ledger(good, "q", slice(0, 3))
    fill_ledger(wide, "q", slice(0, 3), width=6)
    here = tmp_path / "here"
    with pytest.raises(AgiqaError, match=r"wide/lmm-\w+: expected vectors of width 4, float16, as"):
        merge([good, wide], here)
    assert not here.exists()
    fill_ledger(here, "q", slice(0, 1), width=6)
    with pytest.raises(AgiqaError, match=r"good/lmm-\w+: expected vectors of width 6, .* width 4"):
        merge([good], here)
    assert len(list(here.iterdir())) == 1
    pack = tmp_path / "nano.h5"
    prints = [{"extractor": "lmm", "prompt": "q"}]
    write_pack(pack, "nano", ["q"], prints, IDS, numbers(0, IMAGES, 1, 9))
    with pytest.raises(AgiqaError, match=r"nano\.h5: .* width 6, .* found width 9"):
        merge([pack], here)


def test_sources_that_are_none_are_one_line(tmp_path: Path) -> None:
    here, shelf = tmp_path / "here", fill_ledger(tmp_path / "here", "q", slice(0, 3))
    (tmp_path / "a.pt").write_bytes(b"\x80\x02.")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cache/demo").mkdir(parents=True)
    write_pack(tmp_path / "cache/demo/n.h5", "n", ["q"], [{}], IDS, numbers(0, IMAGES, 1, 2))
    newer = fill_ledger(tmp_path / "newer", "q", slice(0, 3))
    about = json.loads((newer / "fingerprint.json").read_text()) | {"layout": 9}
    (newer / "fingerprint.json").write_text(json.dumps(about, indent=2))
    for source, kind, message in [
        ("absent", AgiqaError, "absent: expected a ledger, a shelf or a pack, found nothing"),
        ("a.pt", AgiqaError, r"a\.pt: expected a ledger .* found none of them"),
        ("empty", AgiqaError, "empty: expected a ledger .* found none of them"),
        ("cache", AgiqaError, r"none of them; name the packs in it, such as .*cache/demo/n\.h5"),
        ("here", AgiqaError, "here: expected another ledger, found this one"),
        (f"here/{shelf.name}", AgiqaError, "expected another ledger, found this one"),
        (f"newer/{newer.name}", AgiqaError, "expected layout 2, found 9; upgrade agiqa"),
        ("absent.zarr", AgiqaError, r"absent\.zarr: expected a ledger, a shelf or a pack"),
        ("empty.h5", PackError, "expected an HDF5 pack of agiqa, found a file that HDF5 cannot"),
    ]:
        (tmp_path / "empty.h5").write_bytes(b"\x80\x02K\x01.")
        with pytest.raises(kind, match=message):
            merge([tmp_path / source], here)
    found = merge([tmp_path / "newer"], here)  # a whole ledger: the others are merged
    assert "upgrade agiqa" in found[0].rows.refused


def test_the_images_own_prompts_come_from_the_table_beside_the_pack(
    tmp_path: Path, make_table: Callable[..., ImagesTable], suffix: str
) -> None:
    prompts = [f"a {row}" for row in range(IMAGES)]
    table = make_table(prompts)
    prints = [
        {"extractor": "lmm", "prompt": {"text": text}}
        for text in ("Good?", "Is it {image_prompt}?")
    ]
    row_ids = [row_id(*pair) for pair in zip(IDS, prompts, strict=True)]
    pack, vectors = tmp_path / "tiny" / f"nano{suffix}", numbers(0, IMAGES, 2, NARROW)
    here, recorded = tmp_path / "here", {"own": row_ids_digest(row_ids)}
    write_pack(pack, "nano", ["plain", "own"], prints, row_ids, vectors, (), recorded)
    alone = {each.name: each.rows for each in merge([pack], here)}
    assert (alone["plain"].added, alone["own"].added) == (0, IMAGES)
    assert "images' own prompts" in alone["plain"].refused
    changed = table.frame.assign(prompt=["a cat", *prompts[1:]])
    write_table(dataclasses.replace(table, frame=changed), tmp_path / "tiny")
    assert counts(merge([pack], here)) == [(IMAGES - 1, 0, 0, 0), (0, IMAGES, 0, 0)]
    write_table(table, tmp_path / "tiny")
    assert counts(merge([pack], here)) == [(1, IMAGES - 1, 0, 0), (0, IMAGES, 0, 0)]
    plain = Shelf.open(here, prints[0], NARROW)
    assert np.array_equal(plain.read(IDS), vectors[:, 0])
    assert np.array_equal(Shelf.open(here, prints[1], NARROW).read(row_ids), vectors[:, 1])
