"""Folders of runs, and the names of data sets and targets, which become folders.

A run is known among folders by its provenance.json, which says what it was made from. A data set's
name is a folder below cache/ and runs/, part of the names of DVC's stages and of keys in
params.yaml, and a word of command lines; a target's is a folder in a run, and a word of lists that
commas part. A name is judged where it comes in: `prepare`, params.yaml, images tables.
"""

import os
import re
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
_DATA_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_UNFIT = re.compile(r"""[/\\,:*?"<>|]""")  # in names of folders, or between targets


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


def data_set_name(name: object, prefix: str = "data set") -> str:
    """The name as it is, if a data set, store or extractor may have it.

    Raises:
        AgiqaError: it may not; `prefix` begins the message.
    """
    if not isinstance(name, str) or not _DATA_SET.fullmatch(name):
        raise AgiqaError(
            f"{prefix}: expected a plain name, found {name!r}: give one of up to 64 letters, "
            "digits, dashes and underscores that begins with a letter or digit, such as my-set_2"
        )
    return name


def target_name(name: object, prefix: str) -> str:
    """The name as it is, if a target may have it.

    Raises:
        AgiqaError: it may not; `prefix` begins the message.
    """
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or name != name.strip()
        or not 0 < len(name.encode()) <= 100
        or name[0] in ".-"
        or _UNFIT.search(name)
    ):
        raise AgiqaError(
            f"{prefix}: expected the name of a score to have up to 100 printable characters, "
            f'none of / \\ , : * ? " < > |, no dot or dash before and no space around it, found '
            f"{name!r}: rename it"
        )
    return name
