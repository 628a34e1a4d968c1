"""The models that are compared: of evaluated runs, with their figures and test sides by split."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.model_names import ZERO_SHOT, in_order
from agiqa.core.run_folders import PROVENANCE
from agiqa.data.metric_names import FIGURES
from agiqa.runs.files import provenance_of, require_as_published
from agiqa.runs.hub import RESULTS, START, fetch_run, is_on_hub
from agiqa.runs.predictions import PREDICTIONS, read_predictions
from agiqa.runs.records import METRICS, read_metrics, read_provenance
from agiqa.stage2.presets import MIXTURE


@dataclass(frozen=True)
class Contender:
    """One model of one evaluated run."""

    name: str  # as the user gave it
    folder: Path
    model: str
    provenance: dict[str, Any]
    figures: list[dict[str, float]]  # by split, from metrics.json
    sides: list[pd.DataFrame]  # by split, the test side in the order of its paths

    @property
    def seeds(self) -> list[int]:
        """List the seeds of its splits."""
        return [int(row["seed"]) for row in self.figures]


def read_contenders(given: Sequence[str]) -> list[Contender]:
    """The runs that a user named, as RUN or RUN:MODEL; a single RUN stands for all its models.

    Raises:
        AgiqaError: not an evaluated run, no such model in it, or a damaged file.
    """
    wanted = [(name, *_run_and_model(name)) for name in given]
    runs = {folder: _read_models(folder) for _, folder, _ in wanted}
    contenders = []
    for name, folder, model in wanted:
        models = runs[folder]
        if len(wanted) == 1 and not model:
            return list(models.values())
        model = model or (ZERO_SHOT if ZERO_SHOT in models else MIXTURE)
        if model not in models:
            raise AgiqaError(
                f"{printable(folder)} has no model '{model}'; it has {', '.join(models)}"
            )
        contenders.append(replace(models[model], name=name))
    return contenders


def _run_and_model(name: str) -> tuple[Path, str]:
    if is_on_hub(name):
        address, _, model = name.removeprefix(START).partition(":")
        return fetch_run(START + address), model
    folder, separator, model = name.rpartition(":")
    if separator and not Path(name).exists():
        return Path(folder), model
    return Path(name), ""


def _read_models(folder: Path) -> dict[str, Contender]:
    """Every model of an evaluated run, of results in one, or of a published scorer's results."""
    scorer = (folder / PROVENANCE).is_file() and "scorer" in read_provenance(folder, True)
    provenance = read_provenance(folder, True) if scorer else provenance_of(folder)
    if "published" in provenance and not (folder / METRICS).is_file():
        raise AgiqaError(
            f"{printable(folder)}: was published without its results (`agiqa publish --results`), "
            "so it cannot be compared"
        )
    require_as_published(folder, provenance, tuple(RESULTS))
    per_split = read_metrics(folder, ("models", "per_split"))["per_split"]
    frame = read_predictions(folder)
    models = {}
    for model in in_order(per_split):
        parts = {
            int(str(seed)): part.sort_values("path").reset_index(drop=True)
            for seed, part in frame[frame["model"] == model].groupby("seed")
        }
        rows = per_split[model]
        sizes = [len(parts.get(row["seed"], ())) for row in rows]
        if any(not n or row.get("images", n) != n for row, n in zip(rows, sizes, strict=True)):
            raise AgiqaError(
                f"{printable(folder)}: damaged results ({PREDICTIONS} and {METRICS} differ): "
                "run `agiqa evaluate` again"
            )
        sides = [parts[row["seed"]] for row in rows]
        figures = [
            {"seed": row["seed"]}
            | {name: math.nan if row.get(name) is None else float(row[name]) for name in FIGURES}
            for row in rows
        ]
        models[model] = Contender(model, folder, model, provenance, figures, sides)
    return models
