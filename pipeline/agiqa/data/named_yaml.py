"""YAML files known by name: those in the working folder before those that come with agiqa."""

import difflib
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.trees import read_yaml


def bundled_folder(kind: str) -> Path:
    """Find the files of a kind ("prompts") that come with agiqa: in the wheel, or a checkout."""
    installed = Path(str(importlib.resources.files("agiqa"))) / f"bundled_{kind}"
    return installed if installed.is_dir() else Path(__file__).parents[3] / kind


def named_files(kind: str) -> dict[str, Path]:
    """List the files of a kind by name; one in the working folder hides a bundled one."""
    folders = (bundled_folder(kind), Path(kind))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def find_named(name: str, kind: str, content: str) -> Path:
    """Find the file of a name in the folder `kind`, or at that path where it ends in .yaml.

    Raises:
        AgiqaError: there is no such `content` (a prompt set); the known ones are listed.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise AgiqaError(f"{content.capitalize()} {name} does not exist.")
        return Path(name)
    files = named_files(kind)
    if name in files:
        return files[name]
    raise AgiqaError(
        f"Unknown {content} '{name}'; known: {', '.join(sorted(files))}. A path to a YAML file "
        "works too."
    )


def read_mapping(
    path: Path, content: str, keys: Sequence[str], optional: Sequence[str]
) -> dict[str, Any]:
    """Read a file that has all of `keys`, perhaps the optional ones, and no others.

    Raises:
        AgiqaError: it cannot be read, or has other keys.
    """
    try:
        tree = read_yaml(path)
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{path}: not a readable {content}: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise AgiqaError(f"{path}: expected the keys {', '.join(keys)}.")
    valid = [*keys, *optional]
    for key in tree:
        if key not in valid:
            near = difflib.get_close_matches(str(key), valid, n=1)
            hint = f"valid: {', '.join(keys)}, and at will {', '.join(optional)}."
            if near:
                hint = f"did you mean '{near[0]}'?"
            raise AgiqaError(f"{path}: unknown key '{key}'; {hint}")
    if missing := [key for key in keys if key not in tree]:
        raise AgiqaError(f"{path}: missing {', '.join(missing)}.")
    return tree
