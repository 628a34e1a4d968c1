"""Ledgers and packs of other machines into this one."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable, write_table
from agiqa.store import PackError, Shelf, row_ids_digest, write_pack
from agiqa.store.row_ids import row_id
from agiqa.store.upkeep.merge import Merged, merge

ROWS, WIDTH = 20, 4
IDS = [f"{row:064x}" for row in range(ROWS)]


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float16)


def fill(root: Path, prompt: str, rows: slice, seed: int = 0, width: int = WIDTH) -> Path:
    shelf = Shelf.open(root, {"extractor": "lmm", "prompt": prompt}, width)
    with shelf.writer() as writer:
        writer.add(IDS[rows], numbers(seed, ROWS, width)[rows])
    return shelf.folder


def counts(found: list[Merged]) -> list[tuple[int, int, int, int]]:
    return [
        (each.rows.added, each.rows.present, len(each.rows.kept), len(each.rows.damaged))
        for each in found
    ]


def test_ledgers_of_two_machines_and_a_single_shelf_become_one(tmp_path: Path) -> None:
    fill(tmp_path / "gpu-1", "q", slice(0, 10))
    fill(tmp_path / "gpu-1", "r", slice(0, 5), seed=1)
    shelf = fill(tmp_path / "gpu-2", "q", slice(5, 20))
    fill(tmp_path / "gpu-2", "s", slice(0, 5))
    pixels = tmp_path / "gpu-1" / "pixels-0123456789abcdef"
    pixels.mkdir()
    (pixels / "fingerprint.json").write_text('{"layout": 1, "fingerprint": {}}')
    (pixels / "pixels.u8").write_bytes(b"")
    here = tmp_path / "here"
    found = merge([tmp_path / "gpu-1", shelf], here)
    assert sorted(counts(found)) == [(5, 0, 0, 0), (10, 0, 0, 0), (10, 5, 0, 0)]
    both = Shelf.open(here, {"extractor": "lmm", "prompt": "q"}, WIDTH)
    assert np.array_equal(both.read(IDS), numbers(0, ROWS, WIDTH))
    assert len(list(here.iterdir())) == 2
    assert [added for added, *_ in counts(merge([tmp_path / "gpu-1", shelf], here))] == [0, 0, 0]


def test_widths_that_differ_stop_everything_before_it_begins(tmp_path: Path) -> None:
    """Between a source and the ledger, and between two sources."""
    good, wide = tmp_path / "good", tmp_path / "wide"
    fill(good, "a", slice(0, 3))
    fill(good, "q", slice(0, 3))
    fill(wide, "q", slice(0, 3), width=6)
    here = tmp_path / "here"
    with pytest.raises(AgiqaError, match=r"wide/lmm-\w+: expected vectors of width 4, float16, as"):
        merge([good, wide], here)
    assert not here.exists()
    fill(here, "q", slice(0, 1), width=6)
    with pytest.raises(AgiqaError, match=r"good/lmm-\w+: expected vectors of width 6, .* width 4"):
        merge([good], here)
    assert len(list(here.iterdir())) == 1
    pack = tmp_path / "nano.h5"
    prints = [{"extractor": "lmm", "prompt": "q"}]
    write_pack(pack, "nano", ["q"], prints, IDS, numbers(0, ROWS, 1, 9))
    with pytest.raises(AgiqaError, match=r"nano\.h5: .* width 6, .* found width 9"):
        merge([pack], here)


def test_sources_that_are_none_are_one_line(tmp_path: Path) -> None:
    here, shelf = tmp_path / "here", fill(tmp_path / "here", "q", slice(0, 3))
    (tmp_path / "a.pt").write_bytes(b"\x80\x02.")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cache/demo").mkdir(parents=True)
    write_pack(tmp_path / "cache/demo/n.h5", "n", ["q"], [{}], IDS, numbers(0, ROWS, 1, 2))
    newer = fill(tmp_path / "newer", "q", slice(0, 3))
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


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_the_images_own_prompts_come_from_the_table_beside_the_pack(
    tmp_path: Path, make_table: Callable[..., ImagesTable], suffix: str
) -> None:
    prompts = [f"a {row}" for row in range(ROWS)]
    table = make_table(prompts)
    prints = [
        {"extractor": "lmm", "prompt": {"text": text}}
        for text in ("Good?", "Is it {image_prompt}?")
    ]
    row_ids = [row_id(*pair) for pair in zip(IDS, prompts, strict=True)]
    pack, vectors = tmp_path / "tiny" / f"nano{suffix}", numbers(0, ROWS, 2, WIDTH)
    here, recorded = tmp_path / "here", {"own": row_ids_digest(row_ids)}
    write_pack(pack, "nano", ["plain", "own"], prints, row_ids, vectors, (), recorded)
    alone = {each.name: each.rows for each in merge([pack], here)}
    assert (alone["plain"].added, alone["own"].added) == (0, ROWS)
    assert "images' own prompts" in alone["plain"].refused
    changed = table.frame.assign(prompt=["a cat", *prompts[1:]])
    write_table(dataclasses.replace(table, frame=changed), tmp_path / "tiny")
    assert counts(merge([pack], here)) == [(ROWS - 1, 0, 0, 0), (0, ROWS, 0, 0)]
    write_table(table, tmp_path / "tiny")
    assert counts(merge([pack], here)) == [(1, ROWS - 1, 0, 0), (0, ROWS, 0, 0)]
    plain = Shelf.open(here, prints[0], WIDTH)
    assert np.array_equal(plain.read(IDS), vectors[:, 0])
    assert np.array_equal(Shelf.open(here, prints[1], WIDTH).read(row_ids), vectors[:, 1])
