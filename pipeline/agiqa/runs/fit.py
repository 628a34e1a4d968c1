"""Make a run from what lies under `cache/`: the steps behind `fit` and `import-checkpoint`."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from agiqa.core.errors import AgiqaError
from agiqa.core.hashing import file_sha256
from agiqa.core.params import Params
from agiqa.core.run_folders import require_free_run
from agiqa.data.prompts import prompt_set_text
from agiqa.runs.files import CURVES, Run, save_run
from agiqa.runs.provenance import describe_run, known_images
from agiqa.stage2.features import (
    choose_vectors,
    describe_store,
    require_settings,
    without_left_out,
)
from agiqa.stage2.fit_data import dataset_folder, load_fit_data, load_rated_data, store_path
from agiqa.stage2.fitting import Fitted, fit
from agiqa.stage2.joining import join
from agiqa.stage2.paper.inputs import experts, semantic_order
from agiqa.stage2.paper.pixels import describe_pixels
from agiqa.stage2.paper.reference_checkpoint import read_reference_checkpoint
from agiqa.stage2.presets import LIGHT
from agiqa.stage2.tuned.inputs import TunedInputs
from agiqa.store import read_pack

log = logging.getLogger(__name__)


def fit_run(
    datasets: Sequence[str],
    cache: Path | str,
    params: Params,
    out: Path | None,
    runs: Path,
    extractor: str = "",
    overwrite: bool = False,
) -> Run | None:
    """Fit the data sets together as `params` say and write the run.

    Args:
        datasets: names, at least one.
        cache: the folder of tables and packs, or a URL.
        params: all settings.
        out: the run's folder; None: runs/DATASET/PROTOCOL, with several data sets joined by `+`.
        runs: the folder of runs.
        extractor: name of an extractor other than the settings' own, whose runs go to
            runs/DATASET/EXTRACTOR/PROTOCOL.
        overwrite: whether a run in the folder may go, with all that was made from it.

    Returns:
        The run; None in all but the first of the processes that share a fit (several GPUs).

    Raises:
        AgiqaError: no such table, split file, store or target; data sets or targets that do not
            go together; or a run in the folder already.
    """
    started = time.monotonic()
    if out is not None:
        require_free_run(out, overwrite)
    _require_datasets(datasets, params.fit.preset)
    prompts = prompt_set_text(params.semantic.prompts)
    data = [load_fit_data(name, cache, params) for name in datasets]
    protocol = data[0].protocol
    params = replace(params, fit=replace(params.fit, protocol=protocol))
    folder = out or runs / "+".join(datasets) / extractor / protocol
    require_free_run(folder, overwrite)
    for one in data:
        require_settings(one.features.stores, params)
    features, targets, sides = join(data)
    if isinstance(features, TunedInputs):
        params = replace(params, visual=features.settings(params.visual))
    fitted = fit(features, targets, sides, params)
    if fitted is None:
        return None
    provenance = describe_run(data, params, fitted)
    provenance["fit_seconds"] = round(time.monotonic() - started, 1)
    images = known_images(data)
    save_run(folder, fitted.ensemble, params, provenance, fitted.curves, prompts, images)
    _log_curves(folder, fitted.curves)
    fitted.forget_states()
    return Run(folder, fitted.ensemble, params, provenance, images)


def import_run(
    checkpoint: Path,
    dataset: str,
    cache: Path | str,
    params: Params,
    folder: Path,
    overwrite: bool = False,
) -> Run:
    """Turn a checkpoint of the authors' code into a run on `dataset` by the protocol `paper`.

    Raises:
        AgiqaError: no such table, split file, store or target; or the checkpoint is damaged, of
            another kind, or made for semantic vectors of another width than the store's; or a run
            in the folder already, unless it may be overwritten.
    """
    require_free_run(folder, overwrite)
    prompts = prompt_set_text(params.semantic.prompts)
    settings = replace(params.fit, preset="paper", protocol="paper", answers=False)
    params = replace(params, fit=settings)
    cached = dataset_folder(dataset, cache, params)
    rated = load_rated_data(cached, settings)
    path = store_path(rated.table, cached, params.semantic)
    store = read_pack(path)
    rated = rated.of(without_left_out(rated.table, [store]))
    chosen = choose_vectors(store.names, settings.vectors, str(path))
    order = semantic_order(store.names, chosen, str(path))
    ensemble = read_reference_checkpoint(checkpoint, params.paper.network)
    ensemble.require_width(store.vectors.shape[-1], str(path))
    stores = {
        "semantic": describe_store(store, chosen),
        "visual": describe_pixels(ensemble.config.image_size),
    }
    fitted = Fitted(ensemble, experts([store.names[p] for p in order]), stores)
    provenance = describe_run([rated], params, fitted)
    provenance["imported"] = {"file": checkpoint.name, "sha256": file_sha256(checkpoint)}
    images = known_images([rated])
    save_run(folder, ensemble, params, provenance, [], prompts, images)
    return Run(folder, ensemble, params, provenance, images)


def _require_datasets(datasets: Sequence[str], preset: str) -> None:
    """Refuse a data set that is named twice, and several where the preset learns from one."""
    if len(set(datasets)) < len(datasets):
        raise AgiqaError(f"Each data set is given once, found {' '.join(datasets)}.")
    if len(datasets) > 1 and preset != LIGHT:
        raise AgiqaError(
            f"The preset {preset} learns from one data set, found {', '.join(datasets)}: give one, "
            f"or --preset {LIGHT}."
        )


def _log_curves(folder: Path, curves: Sequence[Mapping[str, Any]]) -> None:
    """Write the median curves in DVCLive's format, where it is installed (extra `dvc`)."""
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
