"""Make and evaluate a run from what lies under `cache/`: the steps behind `fit` and `evaluate`."""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agiqa.checkpoints import CURVES, Run, environment, load_run, save_run
from agiqa.datasets.table import ImagesTable, read_table
from agiqa.errors import AgiqaError
from agiqa.evaluation import Evaluation, evaluate, write_evaluation
from agiqa.features import Features, load_features
from agiqa.params import Params
from agiqa.splits import default_protocol, leaks, read_splits, side_rows
from agiqa.training import fit

log = logging.getLogger(__name__)


def fit_run(dataset: str, cache: Path, params: Params, out: Path | None, runs: Path) -> Run:
    """Fit `dataset` as `params` say and write the run to `out`, or to runs/dataset/protocol.

    Raises:
        AgiqaError: no such table, split file, store or target.
    """
    started = time.monotonic()
    table = read_table(cache / dataset)
    _require_target(table, params.fit.target)
    protocol = params.fit.protocol
    if protocol == "auto":
        protocol = default_protocol(table)
    params = replace(params, fit=replace(params.fit, protocol=protocol))
    splits = _splits(table, cache / dataset, protocol)
    table, features = _features(table, cache / dataset, params)
    splits, sides = _sides(table, splits)
    mos = np.asarray(table.frame[params.fit.target].to_numpy(), dtype=np.float64)
    ensemble, curves = fit(features, mos, sides, params.fit)
    provenance: dict[str, Any] = {
        "dataset": dataset,
        "synthetic": table.synthetic,
        "licence": table.licence,
        "source": table.source,
        "images": len(table.frame),
        "target": params.fit.target,
        "protocol": protocol,
        "seeds": list(sides),
        "members": params.fit.members,
        "mos": {"low": float(mos.min()), "high": float(mos.max())},
        "experts": list(features.experts),
        "stores": dict(features.stores),
        "splits_file": f"{protocol}.csv",
        "leaks": [vars(leak) for leak in leaks(splits, table)],
        "fit_seconds": round(time.monotonic() - started, 1),
        **environment(),
    }
    folder = out or runs / dataset / protocol
    save_run(folder, ensemble, params, provenance, curves)
    _log_curves(folder, curves)
    return Run(folder, ensemble, params, provenance)


def evaluate_run(folder: Path, cache: Path) -> Evaluation:
    """Evaluate the run in `folder` on its data set's test sides and write the results into it."""
    run = load_run(folder)
    dataset = cache / str(run.provenance["dataset"])
    table = read_table(dataset)
    splits = _splits(table, dataset, str(run.provenance["protocol"]))
    table, features = _features(table, dataset, run.params)
    evaluation = evaluate(run, table, features, _sides(table, splits)[1])
    write_evaluation(folder, evaluation)
    return evaluation


def _require_target(table: ImagesTable, target: str) -> None:
    names = [each.name for each in table.targets]
    if target not in names:
        if len(names) == 1:
            hint = f"give --target {names[0]}"
        else:
            hint = f"it has {', '.join(names) or 'none, so it can be scored but not fitted'}"
        raise AgiqaError(f"Data set '{table.name}' has no target '{target}'; {hint}.")


def _splits(table: ImagesTable, folder: Path, protocol: str) -> pd.DataFrame:
    path = folder / "splits" / f"{protocol}.csv"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.csv"))) or "none"
        raise AgiqaError(
            f"No split file {path}; there are: {there}. Run `agiqa prepare {table.name}`."
        )
    splits = read_splits(path)
    side_rows(splits, table)  # refuses splits of another state of the data
    return splits


def _sides(
    table: ImagesTable, splits: pd.DataFrame
) -> tuple[pd.DataFrame, Mapping[int, Mapping[str, np.ndarray]]]:
    """The splits of the images that have vectors, as a table and as row numbers."""
    splits = splits[splits["image_id"].isin(table.frame["image_id"])]
    return splits, side_rows(splits, table)


def _features(table: ImagesTable, folder: Path, params: Params) -> tuple[ImagesTable, Features]:
    stores = [folder / f"{each.name}.{each.format}" for each in (params.semantic, params.visual)]
    for store in stores:
        if not store.exists():
            raise AgiqaError(f"No feature store {store}; run `agiqa extract {table.name}`.")
    return load_features(table, *stores)


def _log_curves(folder: Path, curves: list[dict[str, Any]]) -> None:
    """The median curves in DVCLive's format, where DVCLive is installed (extra `dvc`)."""
    try:
        from dvclive import Live
    except ImportError:
        log.debug("DVCLive is not installed; %s alone has the curves.", CURVES)
        return
    logging.getLogger("dvclive").setLevel(logging.ERROR)
    frame = pd.DataFrame(curves)
    with Live(str(folder / "dvclive"), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        for epoch, rows in frame.groupby("epoch"):
            for model, part in rows.groupby("model"):
                for metric in ("train_loss", "val_srcc", "val_plcc"):
                    live.log_metric(f"{model}/{metric}", float(part[metric].median()))
            live.step = int(str(epoch))
            live.next_step()
