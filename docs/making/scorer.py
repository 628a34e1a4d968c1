"""Fit the scorer that comes with agiqa anew: `make scorer FROM=folder-of-agiqa-3k`.

Out of AGIQA-3K's official download, by the commands themselves, into scorers/agiqa-3k; the same to
the bit on one kind of processor with the pinned libraries. Vectors that the ledger has are not
computed again. Prints the held-out figures that the card quotes.
"""

import json
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
KEPT = ("model.safetensors", "params.yaml", "prompts.yaml")


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
        keep(Path(folder, "runs/agiqa-3k/grouped"))


def keep(run: Path) -> None:
    """Copy what scores out of a run, without what differs from time to time."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(run / name, OUT / name)
    provenance = json.loads((run / "provenance.json").read_text("utf-8"))
    provenance |= {"fit_seconds": 0.0, "git_revision": None}
    (OUT / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
