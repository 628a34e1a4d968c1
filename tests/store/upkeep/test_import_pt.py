"""Features of the reference code: kept as they are, under a fingerprint that claims nothing."""

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Visual
from agiqa.data.datasets.table import ImagesTable
from agiqa.stage1.extract import extract
from agiqa.stage1.extractors import VisionExtractor
from agiqa.store import Shelf, read_pack, write_pack
from agiqa.store.upkeep.import_pt import VECTORS, Imported, UnusableError, import_pt, read_vector
from kit.stored_rows import Planted

ROWS, WIDTH = 10, 16


@pytest.fixture
def table(make_table: Callable[..., ImagesTable]) -> ImagesTable:
    made = make_table(["a"] * ROWS)
    paths = [f"deep/sd1.5_lowcorr_{row:03d}.jpg" for row in range(ROWS)]
    return dataclasses.replace(made, frame=made.frame.assign(path=paths))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As getFeature.py writes it: each tensor a view (1, D) of its batch (8, 1, D), float16."""
    made = tmp_path / "tensors"
    made.mkdir()
    for vector in VECTORS:
        for start in range(0, ROWS, 8):
            batch = torch.from_numpy(numbers(vector)[start : start + 8, None])
            for place, tensor in enumerate(batch):
                torch.save(tensor, made / f"sd1.5_lowcorr_{start + place:03d}_{vector}.pt")
    return made


def numbers(vector: str) -> np.ndarray:
    rng = np.random.default_rng(VECTORS.index(vector))
    return rng.normal(size=(ROWS, WIDTH)).astype(np.float16)


def run(folder: Path, table: ImagesTable, tmp_path: Path, **options: object) -> Imported:
    pack = tmp_path / "cache/tiny/reference.zarr"
    return import_pt(folder, table, pack, tmp_path / "ledger", **options)  # type: ignore[arg-type]


def test_every_number_is_kept_in_ledger_and_pack(
    folder: Path, table: ImagesTable, tmp_path: Path
) -> None:
    found = run(folder, table, tmp_path, model="mplug-owl2")
    assert (found.images, found.width, found.saved_as) == (ROWS, WIDTH, "float16")
    assert (found.skipped, found.unused) == ((), 0)
    store = read_pack(found.pack)
    assert store.names == VECTORS
    assert list(store.image_ids) == list(table.frame["image_id"])
    for place, vector in enumerate(VECTORS):
        assert np.array_equal(store.vectors[:, place], numbers(vector))
        made_by = store.fingerprints[place]
        shelf = Shelf.open(tmp_path / "ledger", made_by, WIDTH)
        assert np.array_equal(shelf.read(store.image_ids), numbers(vector))
        assert (made_by["extractor"], made_by["vector"]) == ("reference-pt", vector)
        assert (made_by["model"], made_by["source"]) == ("mplug-owl2", "unknown")
        assert made_by["preprocessing"] == made_by["libraries"] == "unknown"
    again = run(folder, table, tmp_path, model="mplug-owl2")
    assert (again.images, len(list((tmp_path / "ledger").iterdir()))) == (ROWS, 2)


@pytest.mark.parametrize(
    ("saved", "kept"), [("bfloat16", "float32"), ("float32", "float32"), ("float16", "float16")]
)
def test_types_are_kept_without_loss(
    folder: Path, table: ImagesTable, tmp_path: Path, saved: str, kept: str
) -> None:
    tensors = {}
    for file in folder.iterdir():
        tensors[file.name] = torch.load(file, weights_only=True).to(getattr(torch, saved))
        torch.save(tensors[file.name], file)
    store = read_pack(run(folder, table, tmp_path).pack)
    assert store.vectors.dtype == kept
    assert store.fingerprints[0]["saved_as"] == saved
    first = tensors["sd1.5_lowcorr_000_semantic_content.pt"].float().numpy()
    assert np.array_equal(store.vectors[:1, 0].astype(np.float32), first)


def test_files_lie_beside_each_other_or_as_the_images_do(
    folder: Path, table: ImagesTable, tmp_path: Path
) -> None:
    """Two folders with the same names: only the path tells which file is whose."""
    frame = table.frame.assign(path=[f"{'ab'[r % 2]}/{r // 2}.png" for r in range(ROWS)])
    twice = dataclasses.replace(table, frame=frame)
    for row in range(ROWS):
        for vector in VECTORS:
            old = folder / f"sd1.5_lowcorr_{row:03d}_{vector}.pt"
            new = folder / "ab"[row % 2] / f"{row // 2}_{vector}.pt"
            new.parent.mkdir(exist_ok=True)
            old.rename(new)
    store = read_pack(run(folder, twice, tmp_path).pack)
    assert np.array_equal(store.vectors[:, 1], numbers("coherence"))
    for file in [*folder.glob("a/*"), *folder.glob("b/*")]:
        file.rename(folder / f"{file.parent.name}-{file.name}")
    for file in folder.glob("a-*"):
        file.rename(folder / file.name.removeprefix("a-"))
    with pytest.raises(AgiqaError, match=r"a/0\.png has the name of another image, too, so it is"):
        run(folder, twice, tmp_path)


def test_missing_and_ambiguous_files_are_an_error_or_left_out(
    folder: Path, table: ImagesTable, tmp_path: Path
) -> None:
    (folder / "sd1.5_lowcorr_003_coherence.pt").unlink()
    (folder / "again").mkdir()
    extra = (folder / "sd1.5_lowcorr_005_coherence.pt").read_bytes()
    (folder / "again/sd1.5_lowcorr_005_coherence.pt").write_bytes(extra)
    (folder / "else_coherence.pt").write_bytes(extra)
    (folder / "sd1.5_lowcorr_007_coherence.pt").write_bytes(extra[:500])
    bad = torch.full((1, WIDTH), float("nan"), dtype=torch.float16)
    torch.save(bad, folder / "sd1.5_lowcorr_008_semantic_content.pt")
    found = run(folder, table, tmp_path, skip_missing=True)
    reasons = {Path(each.path).name: each.reason for each in found.skipped}
    assert reasons.pop("sd1.5_lowcorr_003.jpg") == "has no *_coherence.pt"
    assert "expected finite numbers" in reasons.pop("sd1.5_lowcorr_008_semantic_content.pt")
    assert "damaged or truncated" in reasons.pop("sd1.5_lowcorr_007_coherence.pt")
    assert reasons == {"sd1.5_lowcorr_005.jpg": "has 2 candidates for *_coherence.pt"}
    assert found.images == ROWS - 4
    assert found.unused == 5  # three of 5, else, and the single one of 3
    store = read_pack(found.pack)
    ids = list(table.frame["image_id"])
    assert store.left_out == {ids[3], ids[5], ids[7], ids[8]}
    (folder / "sd1.5_lowcorr_005_coherence.pt").unlink()  # now the other is the only one
    found = run(folder, table, tmp_path, skip_missing=True)
    assert found.images == ROWS - 3
    with pytest.raises(AgiqaError, match=r"3 of 10 images of 'tiny' have no vectors.*--skip-miss"):
        run(folder, table, tmp_path)


def test_nothing_is_written_when_something_is_wrong(
    folder: Path, table: ImagesTable, tmp_path: Path
) -> None:
    (folder / "sd1.5_lowcorr_000_coherence.pt").unlink()
    with pytest.raises(AgiqaError, match="1 of 10 images"):
        run(folder, table, tmp_path)
    torch.save(torch.zeros(1, 7).half(), folder / "sd1.5_lowcorr_000_coherence.pt")
    with pytest.raises(AgiqaError, match=r"000_coherence\.pt: expected 16 numbers .* found 7"):
        run(folder, table, tmp_path)
    with pytest.raises(AgiqaError, match=r"expected a folder of \*_semantic_content\.pt files"):
        run(tmp_path / "absent", table, tmp_path)
    for file in folder.glob("*_coherence.pt"):
        file.unlink()
    with pytest.raises(AgiqaError, match=r"none named \*_coherence\.pt among 10 \.pt files"):
        run(folder, table, tmp_path)
    assert not (tmp_path / "ledger").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", ["protocol 2", "protocol 5", "torch.save", "checkpoint"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(
    folder: Path, table: ImagesTable, tmp_path: Path, kind: str
) -> None:
    planted, file = Planted(tmp_path / "ran"), folder / "sd1.5_lowcorr_004_coherence.pt"
    if kind.startswith("protocol"):
        file.write_bytes(pickle.dumps(planted, protocol=int(kind[-1])))
    else:
        torch.save(planted if kind == "torch.save" else {"x": torch.ones(2), "y": planted}, file)
    for skip_missing in (False, True):
        with pytest.raises(AgiqaError, match=r"004_coherence\.pt: .* nothing of it was run") as got:
            run(folder, table, tmp_path, skip_missing=skip_missing)
        assert "\n" not in str(got.value)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "ledger").exists()
    pickle.loads(pickle.dumps(planted))  # what would have happened
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2, 8).half(), r"expected one vector \(1, D\), found shape \(2, 8\)"),
        (torch.ones(()), r"found shape \(\)"),
        (torch.ones(1, 0), r"found shape \(1, 0\)"),
        (torch.ones(1).expand(1, 1 << 40), r"found shape \(1, 1099511627776\)"),
        (torch.ones(1, 4, dtype=torch.float64), "of float16, bfloat16, float32, found float64"),
        (torch.ones(1, 4, dtype=torch.int64), "found int64"),
        (torch.ones(1, 4).to_sparse(), "expected a dense tensor"),
        ({"a": torch.ones(1, 4)}, "expected a tensor, found dict"),
        (torch.tensor([[1.0, float("inf")]]), "expected finite numbers"),
    ],
)
def test_what_is_no_vector_is_one_line(tmp_path: Path, value: object, message: str) -> None:
    file = tmp_path / "x_coherence.pt"
    torch.save(value, file)
    with pytest.raises(UnusableError, match=rf"x_coherence\.pt: .*{message}"):
        read_vector(file)


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"no pickle at all"])
def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x_coherence.pt"
    file.write_bytes(content)
    with pytest.raises(AgiqaError, match=r"x_coherence\.pt: .*(damaged|no pickle at all)") as found:
        read_vector(file)
    assert "\n" not in str(found.value)


def test_another_origin_needs_another_name(
    folder: Path, table: ImagesTable, tmp_path: Path
) -> None:
    """Else nobody could say later which numbers are whose."""
    run(folder, table, tmp_path)
    other = torch.ones(1, WIDTH).half()
    torch.save(other, folder / "sd1.5_lowcorr_000_coherence.pt")
    with pytest.raises(AgiqaError, match=r"source 'unknown', .* for 1 of 10 images; say with --so"):
        run(folder, table, tmp_path)
    run(folder, table, tmp_path, source="second try")
    assert len(list((tmp_path / "ledger").iterdir())) == 4


def test_packs_of_another_kind_are_never_replaced(
    folder: Path,
    table: ImagesTable,
    tmp_path: Path,
    tiny_lmm: Path,
    make_table: Callable[..., ImagesTable],
) -> None:
    """Neither extracted vectors by imported ones, nor the other way round."""
    paid = tmp_path / "cache/tiny/reference.zarr"
    write_pack(paid, "nano", ["a"], [{"x": 1}], ["a" * 64], np.ones((1, 1, 2), np.float16))
    with pytest.raises(AgiqaError, match=r"found the vectors of 'nano'; give another --name"):
        run(folder, table, tmp_path)
    free = import_pt(folder, table, tmp_path / "free.h5", tmp_path / "ledger").pack
    extractor = VisionExtractor(Visual(model=str(tiny_lmm), layers=(1,)))
    with pytest.raises(AgiqaError, match=r"free\.h5: .* found imported ones"):
        extract(table, extractor, free, ledger=tmp_path / "ledger")
