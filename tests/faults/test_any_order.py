"""Hypothesis: whatever is done in whatever order, what is read is what was written.

A shelf, its packs, crashes, merges and damage, beside a model of them: dictionaries. A row that two
machines computed may be either's. A crash is what a kill or a power cut leaves: of what was not
acknowledged, segments that are there, cut short or not there, partial files beside. Damage is a
flipped bit, found and repaired before anything else.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf, add_pack, read_pack, write_pack
from agiqa.store.upkeep.export import convert_pack
from agiqa.store.upkeep.merge import add_vector
from agiqa.store.upkeep.stores import carry_out, plan
from agiqa.store.upkeep.verification import check_pack, check_shelf, repair_shelf
from kit.stored_rows import add_rows, make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
WIDTH, IMAGES = 4, 600
IDS = make_ids(IMAGES)
TRIES = [make_vectors(IMAGES, WIDTH, seed=seed) for seed in range(3)]  # the same rows, made anew

tries = st.sampled_from(range(len(TRIES)))
some_rows = st.tuples(st.integers(0, IMAGES - 1), st.sampled_from([1, 3, 40, 300])).map(
    lambda pair: list(range(pair[0], min(pair[0] + pair[1], IMAGES)))
)
suffixes = st.sampled_from([".zarr", ".h5"])
checked: Counter[str] = Counter()


class Store(RuleBasedStateMachine):
    """What should be there, and what is."""

    @initialize()
    def make(self) -> None:
        checked["sequences"] += 1
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.rows: dict[str, set[bytes]] = {}  # what may be read, by id
        self.packs: dict[str, dict[str, bytes]] = {}  # by suffix
        self.copies: dict[str, bytes] = {}  # of segments, by name
        self.reader = Shelf.open(self.root, FINGERPRINT, WIDTH)  # open all the time

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def shelf(self) -> Shelf:
        """Opened anew, as after a stop."""
        return Shelf.open(self.root, FINGERPRINT, WIDTH)

    def segments(self) -> set[Path]:
        return set((self.shelf().folder / "segments").glob("*.safetensors"))

    @rule(rows=some_rows, attempt=tries)
    def add(self, rows: list[int], attempt: int) -> None:
        add_rows(self.shelf(), [IDS[row] for row in rows], TRIES[attempt][rows])
        for row in rows:
            self.rows.setdefault(IDS[row], {TRIES[attempt][row].tobytes()})

    @rule(rows=some_rows, attempt=tries, by_copying=st.booleans())
    def add_unseen(self, rows: list[int], attempt: int, by_copying: bool) -> None:
        """As another machine does that sees nothing of this one."""
        names = [IDS[row] for row in rows]
        if by_copying:
            with tempfile.TemporaryDirectory() as machine:
                other = Shelf.open(Path(machine), FINGERPRINT, WIDTH)
                add_rows(other, names, TRIES[attempt][rows])
                for path in (other.folder / "segments").iterdir():
                    shutil.copy(path, self.shelf().folder / "segments")
        else:
            self.shelf().rows.add(names, TRIES[attempt][rows])
        for row in rows:
            self.rows.setdefault(IDS[row], set()).add(TRIES[attempt][row].tobytes())

    @rule(rows=some_rows, attempt=tries, data=st.data())
    def crash_while_adding(self, rows: list[int], attempt: int, data: st.DataObject) -> None:
        """Of what was not acknowledged nothing, some or all is on the disk."""
        safe, before = self.segments(), self.shelf().ids()
        new = [IDS[row] for row in rows if IDS[row] not in before]
        if not new:
            return
        name = self.shelf().rows.add(new, TRIES[attempt][[IDS.index(name) for name in new]])
        path = self.shelf().folder / "segments" / name
        size = data.draw(st.integers(0, path.stat().st_size), label="written")
        if data.draw(st.booleans(), label="renamed"):
            os.truncate(path, size)
        else:
            path.rename(path.with_name(f".{name[:16]}.{size}.partial"))
        left = self.shelf()
        there = left.ids() - set(left.damaged())
        assert before <= there, "acknowledged rows are lost"
        assert self.segments() >= safe
        repair_shelf(left.folder)
        for image_id in there - before:
            row = IDS.index(image_id)
            self.rows[image_id] = {TRIES[attempt][row].tobytes()}
        self.reader = self.shelf()  # one opened before may know rows that are lost

    @rule()
    def merge_segments(self) -> None:
        self.copies |= {path.name: path.read_bytes() for path in self.segments()}
        self.shelf().merge()
        assert len(self.segments()) <= 1

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def restore_an_old_segment(self, data: st.DataObject) -> None:
        """Out of a copy of before merges; what was lost since comes back with it."""
        name = data.draw(st.sampled_from(sorted(self.copies)))
        (self.shelf().folder / "segments" / name).write_bytes(self.copies[name])
        shelf = Shelf.at(self.shelf().folder)
        shelf.ids()
        old = shelf.rows.segments()[name]
        found, _ = shelf.rows.rows_of_segment(old, np.arange(len(old.ids)))
        for image_id, row in zip(old.ids, found, strict=True):
            self.rows.setdefault(image_id, set()).add(row.tobytes())

    @rule(moment=st.randoms(use_true_random=False))
    def damage_and_repair(self, moment: Any) -> None:
        """A flipped bit is found; repaired, one row may be absent, but none is another."""
        files = [path for path in sorted(self.shelf().folder.rglob("*")) if path.is_file()]
        files = [path for path in files if path.suffix not in (".partial", ".lock")]
        path = moment.choice([file for file in files if file.stat().st_size])
        whole = path.read_bytes()
        data = bytearray(whole)
        data[moment.randrange(len(data))] ^= 1 << moment.randrange(8)
        path.write_bytes(data)
        if path.name == "fingerprint.json":
            with suppress(AgiqaError):  # a value that changed is named
                self.shelf()
                assert path.read_bytes() == whole, "a damaged description was taken"
            path.write_bytes(whole)
            return
        folder = self.shelf().folder
        assert not check_shelf(folder).is_whole
        repair_shelf(folder)
        again = self.reader = self.shelf()  # one opened before may know rows that are lost
        assert check_shelf(again.folder).is_whole
        lost = self.rows.keys() - again.ids()
        assert len(lost) <= 1
        for image_id in lost:
            del self.rows[image_id]

    @precondition(lambda self: self.rows)
    @rule(suffix=suffixes)
    def pack(self, suffix: str) -> None:
        ids = sorted(self.rows)
        vectors = self.shelf().read(ids)
        write_pack(self.root / f"a{suffix}", "nano", ["a"], [FINGERPRINT], ids, vectors[:, None])
        self.packs[suffix] = {n: row.tobytes() for n, row in zip(ids, vectors, strict=True)}

    @precondition(lambda self: self.packs)
    @rule(data=st.data(), to=suffixes)
    def convert(self, data: st.DataObject, to: str) -> None:
        suffix = data.draw(st.sampled_from(sorted(self.packs)))
        if to != suffix:
            convert_pack(self.root / f"a{suffix}", self.root / f"a{to}", force=True)
        self.packs[to] = self.packs[suffix]

    @precondition(lambda self: self.packs)
    @rule(data=st.data(), rows=st.integers(1, 50))
    def crash_while_packing(self, data: st.DataObject, rows: int) -> None:
        """What a kill leaves beside a pack does not harm it."""
        suffix = data.draw(st.sampled_from(sorted(self.packs)))
        aside = self.root / f".a{suffix}.killed.partial"
        aside.mkdir(exist_ok=True)
        (aside / f"a{suffix}").write_bytes(b"half" * rows)

    def take(self, other: dict[str, bytes]) -> int:
        """The model of a merge: what is there stays; how many rows are new."""
        new = {name: {row} for name, row in other.items() if name not in self.rows}
        self.rows |= new
        return len(new)

    @rule(rows=some_rows, attempt=tries, twice=st.booleans())
    def merge_a_ledger(self, rows: list[int], attempt: int, twice: bool) -> None:
        """Rows that another machine computed, perhaps with other numbers."""
        with tempfile.TemporaryDirectory() as machine:
            source = Shelf.open(Path(machine), FINGERPRINT, WIDTH)
            add_rows(source, [IDS[row] for row in rows], TRIES[attempt][rows])
            other = {IDS[row]: TRIES[attempt][row].tobytes() for row in rows}
            for _ in range(1 + twice):
                assert add_vector(source, self.root).added == self.take(other)

    @precondition(lambda self: self.packs)
    @rule(data=st.data())
    def merge_a_pack(self, data: st.DataObject) -> None:
        """As after `dvc pull` on a machine that lost its ledger, or never had it."""
        suffix = data.draw(st.sampled_from(sorted(self.packs)))
        found = add_pack(self.root / f"a{suffix}", self.root)
        assert found["a"].added == self.take(self.packs[suffix])

    @rule()
    def gc(self) -> None:
        """`agiqa cache gc` takes no row, whatever was damaged, doubled or left behind before."""
        removed, refused = carry_out(*(plan(self.root, [], [])[0] for _ in range(2)))
        assert refused == []
        assert not any(path.exists() for path in (each.path for each in removed))
        checked["freed"] += len(removed)

    @invariant()
    def what_is_read_is_what_was_written(self) -> None:
        checked["states"] += 1
        ids = sorted(self.rows)
        for shelf in (self.shelf(), self.reader):
            assert shelf.ids() == self.rows.keys()
            found = shelf.read(ids)
            assert all(row.tobytes() in self.rows[n] for n, row in zip(ids, found, strict=True))

    @invariant()
    def packs_hold_what_was_packed(self) -> None:
        for suffix, rows in self.packs.items():
            path = self.root / f"a{suffix}"
            assert check_pack(path).is_whole
            store = read_pack(path)
            assert store.fingerprints == (FINGERPRINT,)
            found = zip(store.image_ids, store.vectors, strict=True)
            assert {name: row.tobytes() for name, row in found} == rows


def test_any_order(count: Callable) -> None:
    checked.clear()
    run_state_machine_as_test(
        Store,
        settings=settings(
            max_examples=25,
            stateful_step_count=12,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink takes minutes
        ),
    )
    count(
        sequences=checked["sequences"],
        states_read=checked["states"],
        things_freed=checked["freed"],
        wrong_rows=0,
    )
