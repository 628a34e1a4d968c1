"""One machine in a process of its own: extracts `count` rows from `start` on, and pushes.

`worker.py START COUNT PAUSE`: AGIQA_STORE and XDG_CACHE_HOME say where; a line on the output says
how many rows have been acknowledged.
"""

import sys
import time

from agiqa.store import Shelf, default_root, pull, pushing, shared_shelves
from kit.machines import FINGERPRINT, WIDTH, make_ids, vectors_of


def main(start: int, count: int, pause: float) -> None:
    ids = make_ids(count, start)
    shelf = Shelf.open(default_root(), FINGERPRINT, WIDTH)
    shared = shared_shelves([shelf])
    pulled = pull(shared, [ids])
    missing = [name for name in ids if name not in shelf.ids()]
    with pushing(shared, [ids], seconds=0.05), shelf.writer() as writer:
        for first in range(0, len(missing), 10):
            some = missing[first : first + 10]
            writer.add(some, vectors_of(some))
            writer.flush()
            print(first + len(some), flush=True)  # noqa: T201
            time.sleep(pause)
    print(f"pulled {pulled} computed {len(missing)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
