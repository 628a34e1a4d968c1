"""Quality scores for AI-generated images: LMM semantics cached once, light regressors on top.

The Python interface, in the order of the work; docs/python.md has it all. Each name is loaded when
it is asked for, since most of them bring torch:

    agiqa.prepare("demo")
    agiqa.extract("demo")
    run = agiqa.fit("demo", params=agiqa.Params(fit=agiqa.Fit(gate="linear")))
    agiqa.evaluate(run)
    agiqa.score(["a.png", "b.png"], run)
    agiqa.compare(run, "runs/demo/random")
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agiqa.core.errors import AgiqaError
    from agiqa.core.params import Fit, Paper, Params, Semantic, Source, Splits, Visual
    from agiqa.core.params import load as load_params
    from agiqa.data import metrics
    from agiqa.data.datasets.table import read_table
    from agiqa.data.prepare import prepare
    from agiqa.runs.compare import compare
    from agiqa.runs.create_scorer import create_scorer, score
    from agiqa.runs.evaluate import evaluate
    from agiqa.runs.files import load_run
    from agiqa.runs.fit import fit
    from agiqa.runs.image_quality import ImageQuality as ImageQuality
    from agiqa.stage1.data_sets import estimate_data_set as estimate
    from agiqa.stage1.data_sets import extract_data_set as extract
    from agiqa.store import read_pack

__version__ = "0.1.0"
__all__ = [
    "AgiqaError",
    "Fit",
    "Paper",
    "Params",
    "Semantic",
    "Source",
    "Splits",
    "Visual",
    "compare",
    "create_scorer",
    "estimate",
    "evaluate",
    "extract",
    "fit",
    "load_params",
    "load_run",
    "metrics",
    "prepare",
    "read_pack",
    "read_table",
    "score",
]

_HOMES = {  # module and name there; settings are in core.params
    "AgiqaError": "core.errors.AgiqaError",
    # Not in __all__: `from agiqa import *` has to work without its extra.
    "ImageQuality": "runs.image_quality.ImageQuality",
    "compare": "runs.compare.compare",
    "create_scorer": "runs.create_scorer.create_scorer",
    "estimate": "stage1.data_sets.estimate_data_set",
    "evaluate": "runs.evaluate.evaluate",
    "extract": "stage1.data_sets.extract_data_set",
    "fit": "runs.fit.fit",
    "load_params": "core.params.load",
    "load_run": "runs.files.load_run",
    "prepare": "data.prepare.prepare",
    "read_pack": "store.read_pack",
    "read_table": "data.datasets.table.read_table",
    "score": "runs.create_scorer.score",
}


def __getattr__(name: str) -> object:
    """Load what is asked for out of the module that has it."""
    if name not in (*__all__, *_HOMES):
        raise AttributeError(f"module 'agiqa' has no attribute '{name}'")
    module, _, attribute = _HOMES.get(name, f"core.params.{name}").rpartition(".")
    if name == "metrics":  # the module itself
        return importlib.import_module("agiqa.data.metrics")
    return getattr(importlib.import_module(f"agiqa.{module}"), attribute)


def __dir__() -> list[str]:
    """Name what there is, for completion."""
    return sorted([*__all__, "__version__"])
