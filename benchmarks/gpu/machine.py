"""Card, driver and versions, which every figure needs beside it, and what this machine lacks.

    python benchmarks/gpu/machine.py    one line of JSON: {"about": {...}, "lacks": [...]}

run.py starts it in the environment of the steps. What agiqa needs is what pyproject.toml names,
its server's needs and those of the tests with the mark `gpu`.
"""

import json
import os
import platform
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
NAME = re.compile(r"[\w.-]+")
OF_TESTS = ("pytest", "pytest-timeout", "hypothesis")


def lacks() -> Iterator[str]:
    """Yield each requirement that is not there, or not in a version that will do."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["serve"]]
    texts += [text for text in extras["dev"] if NAME.match(text)[0] in OF_TESTS]
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        yield "packaging"
        Requirement = None
    for text in texts:
        try:
            version = metadata.version(NAME.match(text)[0])
        except metadata.PackageNotFoundError:
            yield text
            continue
        if Requirement and not Requirement(text).specifier.contains(version, prereleases=True):
            yield f"{text} (there is {version})"


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
