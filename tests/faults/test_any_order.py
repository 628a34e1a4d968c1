"""Hypothesis: whatever is done in whatever order, what is read is what was written.

A shelf of two sections, its packs, crashes and damage, beside a model of them: dictionaries. A
crash is what a kill or a power cut leaves: chunks written, the journal cut anywhere after its last
fsync, partial files beside. Damage is a flipped bit, found and repaired before anything else.
"""

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
from agiqa.store import (
    Shelf,
    add_pack,
    add_shelf,
    convert_pack,
    read_pack,
    write_pack,
)
from agiqa.store.ledger.journal import Journal
from agiqa.store.ledger.shelf_check import check_shelf, repair_shelf
from agiqa.store.packs.pack_check import check_pack
from agiqa.store.upkeep.clearing import carry_out, plan
from kit.stored_rows import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
WIDTH, IMAGES = 4, 600
IDS = make_ids(IMAGES)
TRIES = [make_vectors(IMAGES, WIDTH, seed=seed) for seed in range(3)]  # the same rows, made anew

sections = st.sampled_from([0, 1])
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
        self.rows: dict[int, dict[str, bytes]] = {0: {}, 1: {}}  # by section
        self.packs: dict[str, dict[str, bytes]] = {}  # by suffix
        self.reader = Shelf.open(self.root, FINGERPRINT, WIDTH)  # open all the time

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def shelf(self, section: int = 0) -> Shelf:
        """Opened anew, as after a stop."""
        return Shelf.open(self.root, FINGERPRINT, WIDTH, section=section)

    def journal(self, section: int) -> Path:
        return self.shelf().folder / ("part-1" if section else "") / "journal.jsonl"

    def known(self, section: int) -> set[str]:
        """What a section has."""
        journal = Journal(self.journal(section))
        if journal.path.exists():
            journal.refresh()
        return set(journal.rows)

    def union(self) -> dict[str, bytes]:
        """Of two sections the first that has a row gives it."""
        return {**self.rows[1], **self.rows[0]}

    def add_to(self, section: int, rows: list[int], vectors: np.ndarray) -> dict[str, bytes]:
        """Add rows; those that were new."""
        with self.shelf(section).writer() as writer:
            writer.add([IDS[row] for row in rows], vectors[rows])
        there = self.rows[section]
        return {IDS[row]: vectors[row].tobytes() for row in rows if IDS[row] not in there}

    @rule(section=sections, rows=some_rows, attempt=tries)
    def add(self, section: int, rows: list[int], attempt: int) -> None:
        self.rows[section] |= self.add_to(section, rows, TRIES[attempt])

    @rule(section=sections, rows=some_rows)
    def drop(self, section: int, rows: list[int]) -> None:
        with self.shelf(section).writer() as writer:
            writer.drop([IDS[row] for row in rows])
        for row in rows:
            self.rows[section].pop(IDS[row], None)

    @rule(section=sections, rows=some_rows, attempt=tries, data=st.data())
    def crash_while_adding(
        self, section: int, rows: list[int], attempt: int, data: st.DataObject
    ) -> None:
        """Chunks are on the disk, the journal is cut: nothing, some or all of it was fsynced."""
        journal = self.journal(section)
        safe = journal.read_bytes() if journal.exists() else b""
        new = self.add_to(section, rows, TRIES[attempt])
        written = journal.read_bytes()
        same = zip(safe, written, strict=False)  # but for the tail that an earlier crash left
        least = next((place for place, pair in enumerate(same) if pair[0] != pair[1]), len(safe))
        cut = data.draw(st.integers(min(least, len(written)), len(written)), label="journal cut at")
        tail = data.draw(st.sampled_from([b"", b"\0" * 100, b'{"check":"']), label="garbage after")
        journal.write_bytes(written[:cut] + (tail if cut < len(written) else b""))
        (journal.parent / "vectors" / "c.7.0.partial").write_bytes(b"half a chunk")
        kept = self.known(section)
        assert self.rows[section].keys() <= kept, "acknowledged rows are lost"
        self.rows[section] |= {name: row for name, row in new.items() if name in kept}

    @rule(moment=st.randoms(use_true_random=False))
    def damage_and_repair(self, moment: Any) -> None:
        """A flipped bit is found; repaired, rows may be absent, but none is another."""
        files = [path for path in sorted(self.shelf().folder.rglob("*")) if path.is_file()]
        files = [path for path in files if path.suffix not in (".partial", ".lock")]
        path = moment.choice([each for each in files if each.stat().st_size])
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
        folder = self.shelf().folder  # the bit may be in what no row rests on
        repair_shelf(folder)
        again = self.reader = self.shelf()  # one opened before may know rows that are lost
        assert check_shelf(again.folder).is_whole
        for section, rows in self.rows.items():
            kept = self.known(section)
            self.rows[section] = {name: row for name, row in rows.items() if name in kept}

    @precondition(lambda self: self.union())
    @rule(suffix=suffixes)
    def pack(self, suffix: str) -> None:
        there = self.union()
        ids = sorted(there)
        vectors = self.shelf().read(ids)
        write_pack(self.root / f"a{suffix}", "nano", ["a"], [FINGERPRINT], ids, vectors[:, None])
        self.packs[suffix] = there

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
        new = {name: row for name, row in other.items() if name not in self.union()}
        self.rows[0] |= new
        return len(new)

    @rule(rows=some_rows, attempt=tries, twice=st.booleans())
    def merge_a_ledger(self, rows: list[int], attempt: int, twice: bool) -> None:
        """Rows that another machine computed, perhaps with other numbers."""
        with tempfile.TemporaryDirectory() as machine:
            source = Shelf.open(Path(machine), FINGERPRINT, WIDTH)
            with source.writer() as writer:
                writer.add([IDS[row] for row in rows], TRIES[attempt][rows])
            other = {IDS[row]: TRIES[attempt][row].tobytes() for row in rows}
            for _ in range(1 + twice):
                assert add_shelf(source, self.shelf()).added == self.take(other)

    @precondition(lambda self: self.packs)
    @rule(data=st.data())
    def merge_a_pack(self, data: st.DataObject) -> None:
        """As after `dvc pull` on a machine that lost its ledger, or never had it."""
        suffix = data.draw(st.sampled_from(sorted(self.packs)))
        found = add_pack(self.root / f"a{suffix}", self.root)
        assert found["a"].added == self.take(self.packs[suffix])

    @rule()
    def gc(self) -> None:
        """`agiqa cache gc` takes no row, whatever was dropped, damaged or left behind before."""
        removed, refused = carry_out(*(plan(self.root, [], []) for _ in range(2)))
        assert refused == []
        assert not any(path.exists() for path in (each.path for each in removed))
        checked["freed"] += len(removed)

    @invariant()
    def what_is_read_is_what_was_written(self) -> None:
        checked["states"] += 1
        there = self.union()
        for shelf in (self.shelf(), self.reader):
            assert shelf.ids() == there.keys()
            ids = sorted(there)
            found = shelf.read(ids)
            assert [row.tobytes() for row in found] == [there[name] for name in ids]

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
