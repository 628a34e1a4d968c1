"""Fit the scorer that comes with agiqa anew: `make scorer FROM=folder-of-agiqa-3k`.

Out of AGIQA-3K's official download, by the commands themselves, into scorers/agiqa-3k; the same to
the bit on one kind of processor with the pinned libraries. Vectors that the ledger has are not
computed again. Prints the card that `agiqa publish` makes, whose figures the shipped one quotes.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
OUT = REPOSITORY / "scorers" / "agiqa-3k"
# The tower at the size that the LMM sees, so that one pass gives all vectors; few components, so
# that the run fits into a wheel.
SETTINGS = [
    "visual.image_size=224",
    "visual.closeup=0",
    "fit.components=256",
    "fit.semantic_components=96",
]
CARD = "README.md"


def main(source: Path) -> None:
    """Fit, evaluate, and replace the shipped run."""
    options = [f"--set={setting}" for setting in SETTINGS]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(REPOSITORY / "params.yaml", folder)

        def agiqa(*words: str) -> None:
            subprocess.run(["agiqa", *words], check=True, cwd=folder)

        agiqa("prepare", "agiqa-3k", "--from", str(source.resolve()))
        agiqa("extract", "agiqa-3k", *options)
        agiqa("fit", "agiqa-3k", "--protocol", "grouped", "--target", "quality", *options)
        agiqa("evaluate", "runs/agiqa-3k/grouped")
        agiqa("publish", "runs/agiqa-3k/grouped", "-o", OUT.name, "--licence", "apache-2.0")
        made = Path(folder, OUT.name)
        print((made / CARD).read_text("utf-8"))
        (made / CARD).unlink()  # the shipped one is written by hand
        shutil.copytree(made, OUT, dirs_exist_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
