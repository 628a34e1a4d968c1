"""What `make venv` installs goes into every Python that agiqa promises to run on."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def test_each_pin_admits_the_oldest_python() -> None:
    """Debian 12 has 3.11.2; a package that wants 3.11.5 ends `make demo` there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    held = 0
    for pin in PINS:
        try:
            installed = metadata.distribution(pin.name)
        except metadata.PackageNotFoundError:
            continue  # of another extra
        if pin.specifier.contains(installed.version):
            python = installed.metadata["Requires-Python"]
            assert python is None or SpecifierSet(python).contains(oldest), (str(pin), python)
            held += 1
    if held < len(PINS) / 2:
        pytest.skip("this environment was not installed with constraints.txt")
