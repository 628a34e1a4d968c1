"""How a run is known among folders: by its provenance.json, which says what it was made from."""

import os
from pathlib import Path

from agiqa.core.errors import AgiqaError, printable, some

PROVENANCE = "provenance.json"
CARD = "README.md"  # of a published run
FITTED = (
    "model.safetensors", "params.yaml", "prompts.yaml", PROVENANCE, "curves.csv", "dvclive", CARD
)  # fmt: skip
# What is made from a run later, and lies in it: by evaluate, cross, explain and report.
MADE_FROM_IT = (
    "predictions.csv", "metrics.json", "summary.json", "scatter.csv", "targets", "datasets",
    "cross", "explanations", "plots", "report.html",
)  # fmt: skip


def require_free_run(folder: Path, overwrite: bool) -> None:
    """Refuse to put a run where another one stands, or somebody's files.

    Args:
        folder: of the new run.
        overwrite: whether a run there, with all that was made from it, may go.

    Raises:
        AgiqaError: names what would be lost, and the way out.
    """
    if not folder.is_dir():
        return
    present = sorted(path.name for path in folder.iterdir() if path.name != ".gitignore")
    foreign = [name for name in present if name not in (*FITTED, *MADE_FROM_IT)]
    where = printable(folder)
    if foreign:
        raise AgiqaError(
            f"{where}: expected no folder there or one of a run, found what is no run's "
            f"({some([printable(name) for name in foreign], 3)}), which would be lost: choose "
            "another folder, or move it away"
        )
    if present and not overwrite:
        made = [name for name in present if name in MADE_FROM_IT]
        lost = f", and what was made from it ({some(made, 9)})" if made else ""
        raise AgiqaError(
            f"{where}: a run stands there, which would be lost{lost}: give --replace, or another "
            "folder"
        )


def provenance_files(folder: Path) -> list[Path]:
    """Those of all runs below a folder, sorted; runs half written, in hidden folders, among them.

    What vanishes meanwhile, since another process puts a finished run in place, is passed over.
    """
    walked = os.walk(folder)
    return sorted(
        Path(directory, PROVENANCE) for directory, _, names in walked if PROVENANCE in names
    )
