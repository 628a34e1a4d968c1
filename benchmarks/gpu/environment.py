"""What the steps of run.py run in: the bundle's parts, their wheels, variables, and this machine.

Everything that this makes lies in the bundle's folder or in OUT/work.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from parts import InputError, unpack
from results import Row
from steps import BENCHMARKS, REPOSITORY

PYTHON = (3, 12)  # of the bundle's wheels


def find_bundle() -> Path:
    """Find the bundle and unpack what of it is whole; where none is named there may be none.

    Raises:
        InputError: one is named or begun and not there, or it is none.
    """
    named = os.environ.get("BUNDLE", "")
    bundle = Path(named).resolve() if named else REPOSITORY / ".gpu"
    if (bundle / "bundle.json").exists():
        for line in unpack(bundle):
            print(f"run.sh: {line}", file=sys.stderr)
    elif (named or bundle.exists()) and not (bundle / "unpacked").is_dir():
        raise InputError(
            f"{bundle}: expected bundle.json and the parts beside it, found no bundle.json: bring "
            "it, or make the bundle with bundle.py"
        )
    return bundle


def install(bundle: Path) -> Path | None:
    """Install the bundle's wheels beside it, for these steps alone; None where there are none.

    Raises:
        InputError: pip cannot.
    """
    wheels, site = sorted((bundle / "unpacked/wheels").glob("*.whl")), bundle / "site"
    if not wheels:
        return None
    names = "\n".join([sys.version, *(f"{path.name} {path.stat().st_size}" for path in wheels)])
    stamp = site / "wheels.txt"
    if stamp.is_file() and stamp.read_text("utf-8", "replace") == names:
        return site
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
           "--no-compile", "--disable-pip-version-check"]  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(dir=bundle, prefix="installing-") as folder:
            target = Path(folder) / "site"
            done = subprocess.run([*pip, "--target", str(target), *map(str, wheels)],
                                  capture_output=True, text=True, errors="replace",
                                  check=False)  # fmt: skip
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["it said nothing"]
                hint = "bring the wheels' parts again"
                if sys.version_info[:2] != PYTHON:
                    hint = f"they are for Python 3.12, this is {sys.version.split()[0]}: PYTHON="
                    hint += "python3.12 bash benchmarks/gpu/run.sh OUT"
                raise InputError(
                    f"{bundle}: pip cannot install the wheels ({lines[-1][:200]}): {hint}"
                )
            (target / "wheels.txt").write_text(names, "utf-8")
            shutil.rmtree(site, ignore_errors=True)
            target.replace(site)
    except OSError as error:
        raise InputError(f"{site}: cannot be written: {error}") from None
    return site


def environment_of(work: Path, bundle: Path, site: Path | None) -> dict[str, str]:
    """Give the steps' variables, with a ledger and models of this run's own.

    Raises:
        InputError: OUT/work cannot be written.
    """
    nano = bundle / "unpacked/nano"
    own = {"AGIQA_STORE": str(work / "ledger"), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    named = work / "names"  # agiqa runs from this checkout; its version is asked as a package's
    try:
        if any(nano.glob("*.whl")):
            own["AGIQA_MODELS"] = str(work / "models")
            (work / "models/wheels").mkdir(parents=True, exist_ok=True)
            for wheel in nano.glob("*.whl"):
                shutil.copy(wheel, work / "models/wheels")
        package = named / f"agiqa-{project['version']}.dist-info"
        package.mkdir(parents=True, exist_ok=True)
        (package / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: agiqa\nVersion: {project['version']}\n", "utf-8"
        )
        shutil.copy(REPOSITORY / "params.yaml", work)
    except OSError as error:
        raise InputError(f"{work}: cannot be written: {error}") from None
    paths = [REPOSITORY / "pipeline", BENCHMARKS, *([site] if site else []), named]
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.environ | own | {"PYTHONPATH": os.pathsep.join([*map(str, paths), *given])}


def ask_machine(environment: dict[str, str]) -> Row:
    """Ask the steps' Python for its card and versions.

    Raises:
        InputError: it lacks what agiqa needs, or torch does not load.
    """
    advice = "install it, bring the bundle's part-00, or name another Python by PYTHON="
    command, stderr = [sys.executable, str(Path(__file__).with_name("machine.py"))], "no answer"
    try:
        done = subprocess.run(command, env=environment, text=True, errors="replace",
                              capture_output=True, timeout=180, check=False)  # fmt: skip
        stderr = done.stderr.strip() or stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        lacks, about = answer["lacks"], answer["about"]
    except (subprocess.TimeoutExpired, ValueError, IndexError, KeyError, TypeError):
        raise InputError(
            f"{sys.executable}: expected torch and transformers that load, found "
            f"{stderr.splitlines()[-1][:200]}: {advice}"
        ) from None
    if lacks:
        raise InputError(
            f"{sys.executable}: expected what agiqa needs, found no {', '.join(lacks)}: {advice}"
        )
    return dict(about)
