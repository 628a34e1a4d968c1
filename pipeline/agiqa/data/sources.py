"""Which data set a name means, and where it is: for `prepare` and `agiqa datasets`."""

import os
from dataclasses import fields, replace
from pathlib import Path

from agiqa.core.errors import AgiqaError, UsageError
from agiqa.core.params import Params, Source
from agiqa.data.datasets import OFFICIAL
from agiqa.data.datasets.origin import AbsentError

KINDS = (*OFFICIAL, "csv", "folder", "demo")
TABLES = (".csv", ".tsv")

# What else a data set is called in papers and downloads: the name that it has here.
ALIASES = {
    "aigcqa-20k": "aigiqa-20k",
    "aigciqa-20k": "aigiqa-20k",
    "aigcqa-30k-image": "aigiqa-20k",
    "agiqa3k": "agiqa-3k",
    "aigciqa-2023": "aigciqa2023",
    "agiqa1k": "agiqa-1k",
    "evalmuse": "evalmuse-40k",
    "koniq10k": "koniq-10k",
}


def canonical(name: str) -> str:
    """Give a data set's name here, for whatever it is called; other names are as they were."""
    lower = name.lower()
    return ALIASES.get(lower, lower if lower in KINDS else name)


def find_source(name: str, path_or_source: Source | Path | str | None, params: Params) -> Source:
    """Complete a source: of what kind it is, and where; the name says so where nothing else does.

    Without the source or its path it is as the settings have it.

    Raises:
        UsageError: a CSV's setting for another kind, or a path for the demo.
        AgiqaError: an unknown data set or kind, or nothing says where it is.
    """
    configured = params.sources.get(name, Source())
    source = configured if path_or_source is None else path_or_source
    if not isinstance(source, Source):
        source = replace(configured, path=str(source))
    path, named = source.path, canonical(name)
    kind = canonical(source.kind) or (named if named in KINDS else "")
    if not kind and path:
        kind = "csv" if path.lower().endswith(TABLES) else "folder"
        if kind == "folder" and Path(path).expanduser().is_file():
            raise AgiqaError(
                f"{path}: expected a folder of images, or a table whose name ends in "
                f"{' or '.join(TABLES)}: save it as one (--kind csv reads any as CSV)"
            )
    if not kind:
        raise AgiqaError(
            f"Unknown data set '{name}': give --from with a CSV or a folder, or add it to "
            f"'sources' in params.yaml. Built in: {', '.join(KINDS)}."
        )
    if kind not in KINDS:
        raise AgiqaError(
            f"sources.{name}.kind is '{kind}' in the settings; expected one of {', '.join(KINDS)}."
        )
    if not path and kind != "demo":
        folder = _folder_in_agiqa_data(name, kind)
        if folder is None:
            raise AbsentError(
                f"Where is '{name}'? Give --from, set sources.{name}.path in params.yaml, or set "
                "AGIQA_DATA to the folder that holds your data sets."
            )
        path = str(folder)
    _require_fitting(name, kind, source, configured)
    return replace(source, kind=kind, path=path)


def _require_fitting(name: str, kind: str, source: Source, configured: Source) -> None:
    """Refuse what was given beyond the settings if it means nothing for a source of this kind."""
    names = [field.name for field in fields(Source) if field.name not in ("kind", "splits")]
    changed = [key for key in names if getattr(source, key) != getattr(configured, key)]
    if "path" in changed and kind == "demo":
        raise UsageError(
            f"--from: '{name}' is made by agiqa itself: give your own data another name, or --kind."
        )
    if kind != "csv" and (columns := [key for key in changed if key != "path"]):
        option = "--" + columns[0].replace("_columns", "-column").replace("_", "-")
        raise UsageError(f"{option} is for a CSV; '{name}' is read as {kind}.")


def known_folder(name: str, params: Params) -> Path | None:
    """Say where the settings or $AGIQA_DATA would have an official data set; None: nowhere."""
    path = params.sources.get(name, Source()).path
    return Path(path).expanduser() if path else _folder_in_agiqa_data(name, name)


def _folder_in_agiqa_data(name: str, kind: str) -> Path | None:
    """Name a data set's folder in $AGIQA_DATA, by the name given or else by its own."""
    parent = os.environ.get("AGIQA_DATA")
    if not parent:
        return None
    folders = [Path(parent).expanduser() / folder for folder in (name, kind)]
    return next((folder for folder in folders if folder.exists()), folders[0])
