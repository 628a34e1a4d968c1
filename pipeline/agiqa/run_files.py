"""How a run is known among folders: by its provenance.json, which says what it was made from."""

import os
from pathlib import Path

PROVENANCE = "provenance.json"


def provenance_files(folder: Path) -> list[Path]:
    """Those of all runs below a folder, sorted; runs half written, in hidden folders, among them.

    What vanishes meanwhile, since another process puts a finished run in place, is passed over.
    """
    walked = os.walk(folder)
    return sorted(Path(place, PROVENANCE) for place, _, names in walked if PROVENANCE in names)
