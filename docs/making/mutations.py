"""Break ten lines, one at a time, and see that a test fails each: `make mutations`.

Each stands for a promise: what is measured, what stays apart, what is checked, what is refused. A
line is changed in a copy of the checkout, and the tests beside it are run there.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
COPIED = ("pipeline", "tests", "prompts", "scorers", "docs", "pyproject.toml", "params.yaml")


class Mutation(NamedTuple):
    """A line, what it becomes, and the tests that have to notice."""

    promise: str
    file: str  # below pipeline/agiqa
    line: str
    broken: str
    tests: str  # below tests


MUTATIONS = (
    Mutation("metrics: the raw error is one of differences", "data/metrics.py",
             "_root_mean_square(mos - score) if", "_root_mean_square(mos + score) if",
             "data/test_metrics.py"),
    Mutation("splits: the cut nearest to the ratio", "data/splits/protocols.py",
             "np.argmin(np.abs(ends - share * ends[-1]))) + 1",
             "np.argmin(np.abs(ends - share * ends[-1]))) + 2",
             "data/splits/test_protocols.py"),
    Mutation("closed forms: scores of training images are left-out ones",
             "stage2/light/ridge.py",
             "left_out.append(wanted - inverse.errors(dual, groups) - constants)",
             "left_out.append(wanted - constants)", "stage2/light/test_kernel.py"),
    Mutation("gate: kept only where it gains by more than noise", "stage2/light/mixture.py",
             "> LEAST_GAIN * float(gain.std())", "> -LEAST_GAIN * float(gain.std())",
             "stage2/light/test_gate.py"),
    Mutation("ledger: a row that fails its checksum is absent", "store/rows.py",
             "(computed == checksums[block]) & finite_rows", "finite_rows",
             "store/test_segments.py"),
    Mutation("pack: a row that fails its checksum is damaged", "store/packs/pack_layout.py",
             "whole[:] = whole_rows(keys, vectors, self.row_crc32[rows])",
             "whole[:] = True", "store/test_pack.py"),
    Mutation("extractor: patches are pooled, not the class token",
             "stage1/extractors/vision.py", "patches = states[:, -count:]",
             "patches = states[:, :count]", "stage1/test_other_models.py"),
    Mutation("params: an unknown key is refused", "core/typed_values.py",
             "if key not in hints:", "if key is None:", "core/test_params.py"),
    Mutation("score: best first", "runs/score_stream.py", "ORDER BY score DESC, number",
             "ORDER BY score, number", "runs/test_score_stream.py"),
    Mutation("serve: no other page's requests", "views/server/guards.py",
             "if foreign or headers", "if headers", "views/server/test_guards.py"),
)  # fmt: skip


def main() -> int:
    """Print a line for each mutation; the number of those that no test noticed."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            copy(REPOSITORY / name, Path(folder, name))
        for mutation in MUTATIONS:
            path = Path(folder, "pipeline/agiqa", mutation.file)
            text = path.read_text("utf-8")
            assert text.count(mutation.line) == 1, mutation
            path.write_text(text.replace(mutation.line, mutation.broken), "utf-8")
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-qx", f"tests/{mutation.tests}"],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": f"{folder}/pipeline", "AGIQA_DATA": "none"},
                capture_output=True,
                text=True,
                check=False,
            )
            path.write_text(text, "utf-8")
            missed += done.returncode != 1
            noticed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
            print(f"{mutation.promise}: {noticed[0] if noticed else 'NOT NOTICED'}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())
