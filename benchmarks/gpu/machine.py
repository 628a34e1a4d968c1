"""Card, driver and versions, which every figure needs beside it, and what this machine lacks.

    python benchmarks/gpu/machine.py    one line of JSON: {"about": {...}, "lacks": [...]}

run.py starts it in the environment of the steps. What agiqa needs is what pyproject.toml names,
its server's needs and those of the tests with the mark `gpu`.
"""

import json
import os
import platform
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
OF_TESTS = ("pytest", "pytest-timeout", "hypothesis")


def lacks() -> Iterator[str]:
    """Yield each requirement that is not there, or not in a version that will do."""
    from packaging.requirements import Requirement

    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [Requirement(text) for text in (*project["dependencies"], *extras["serve"])]
    needed += [need for need in map(Requirement, extras["dev"]) if need.name in OF_TESTS]
    for requirement in needed:
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield wanted
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{wanted} (there is {version})"


def about() -> dict[str, str]:
    """Name the card with its driver, the versions, and the number of processors."""
    import torch
    import transformers

    versions = {"python": platform.python_version(), "torch": torch.__version__,
                "transformers": transformers.__version__, "cpus": str(os.cpu_count())}  # fmt: skip
    if not torch.cuda.is_available():
        return {"card": "none"} | versions
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        card = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        card = ""
    card = "; ".join(card.split("\n")).strip("; ") or torch.cuda.get_device_name()
    return {"card": card, "cuda": str(torch.version.cuda)} | versions


if __name__ == "__main__":
    missing = list(lacks())
    print(json.dumps({"lacks": missing, "about": {} if missing else about()}))
