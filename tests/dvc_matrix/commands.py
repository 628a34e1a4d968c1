"""`agiqa`, as the stages call it: each batch is acknowledged at once, so that a kill meets some,
and `$AGIQA_COMPUTED` notes rows that have been computed."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agiqa.cli import main
from agiqa.store import Shelf, ShelfWriter

add = ShelfWriter.add


def noted(writer: ShelfWriter, ids: Sequence[str], vectors: Any) -> None:
    """Add rows that have been computed, and note that they were."""
    shelf = Path(writer.rows.folder.where).name
    with Path(os.environ["AGIQA_COMPUTED"]).open("a") as log:
        log.write("".join(f"{shelf} {row_id}\n" for row_id in ids))
    add(writer, ids, vectors)


if __name__ == "__main__":
    Shelf.writer = functools.partialmethod(Shelf.writer, flush_seconds=0.0)  # type: ignore
    ShelfWriter.add = noted  # type: ignore[method-assign]
    main(prog_name="agiqa")
