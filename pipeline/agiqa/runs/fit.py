"""Make a run from what lies under `cache/`: `agiqa.fit`, and what `import-checkpoint` does."""

import dataclasses
import importlib.metadata
import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params, settings, with_extractor
from agiqa.core.regular_files import file_sha256
from agiqa.core.run_folders import require_free_run
from agiqa.data.prompts import prompt_set_text
from agiqa.runs.files import CURVES, Run, save_run
from agiqa.stage2.features import (
    VISUAL,
    choose_vectors,
    describe_store,
    require_settings,
    without_left_out,
)
from agiqa.stage2.fit_data import (
    RatedData,
    dataset_folder,
    join,
    load_fit_data,
    load_rated_data,
    store_path,
)
from agiqa.stage2.paper.inputs import describe_pixels, semantic_order
from agiqa.stage2.paper.weights import read_reference_checkpoint
from agiqa.stage2.predictors import fit_ensemble
from agiqa.stage2.presets import LIGHT
from agiqa.stage2.tuned.inputs import TunedInputs
from agiqa.store import read_pack

log = logging.getLogger(__name__)

LIBRARIES = ("torch", "transformers", "scikit-learn", "scipy", "numpy", "zarr", "agiqa")


def fit(
    datasets: str | Sequence[str],
    *,
    params: Params | None = None,
    extractor: str = "",
    out: Path | str | None = None,
    replace: bool = False,
    cache: Path | str = "cache",
    runs: Path | str = "runs",
) -> Run | None:
    """Train on cached vectors, every split at once: `fit("demo").folder`.

    Args:
        datasets: a prepared and extracted data set, or several that train together.
        params: all settings; by default those of ./params.yaml. `params.fit` has preset, target
            and protocol.
        extractor: an entry of `extractors` in the settings, instead of section semantic.
        out: the run's folder; by default `runs/DATASET/PROTOCOL`, with several data sets joined by
            `+`, of an extractor `runs/DATASET/EXTRACTOR/PROTOCOL`.
        replace: overwrite a run in that folder, and all that was made from it.
        cache: folder of images tables and feature stores, or its URL.
        runs: the folder of runs.

    Returns:
        The run, written to its folder; None in all but the first of the processes that share a
        fit (several GPUs).

    Raises:
        AgiqaError: no such data set, vectors, split, target or extractor; data sets or targets that
            do not go together; or a run in the folder.
    """
    started = time.monotonic()
    names = [datasets] if isinstance(datasets, str) else list(datasets)
    params = with_extractor(settings(params), extractor)
    if out is not None:
        require_free_run(Path(out), replace)
    _require_datasets(names, params.fit.preset)
    prompts = prompt_set_text(params.semantic.prompts)
    data = [load_fit_data(name, cache, params) for name in names]
    protocol = data[0].protocol
    folder = Path(out or Path(runs, "+".join(names), extractor, protocol))
    require_free_run(folder, replace)
    for one in data:
        require_settings(one.features.stores, params)
    features, targets, sides = join(data)
    # The run remembers the protocol that `auto` stands for, and what its tuned blocks come from.
    params = dataclasses.replace(params, fit=dataclasses.replace(params.fit, protocol=protocol))
    if isinstance(features, TunedInputs):
        params = dataclasses.replace(params, visual=features.settings(params.visual))
    fitted = fit_ensemble(features, targets, sides, params)
    if fitted is None:
        return None
    provenance = _describe(data, params, features.experts, features.stores)
    provenance["fit_seconds"] = round(time.monotonic() - started, 1)
    run = Run(folder, fitted.ensemble, params, provenance, _known_images(data))
    save_run(run, fitted.curves, prompts)
    _log_curves(folder, fitted.curves)
    for state in fitted.states:  # what a stopped fit would go on from
        state.remove()
    return run


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
    fit_settings = dataclasses.replace(params.fit, preset="paper", protocol="paper", answers=False)
    params = dataclasses.replace(params, fit=fit_settings)
    cached = dataset_folder(dataset, cache, params)
    rated = load_rated_data(cached, fit_settings)
    path = store_path(rated.table, cached, params.semantic)
    store = read_pack(path)
    rated = rated.of(without_left_out(rated.table, [store]))
    chosen = choose_vectors(store.names, fit_settings.vectors, str(path))
    order = semantic_order(store.names, chosen, str(path))
    ensemble = read_reference_checkpoint(checkpoint, params.paper.network)
    ensemble.require_width(store.vectors.shape[-1], str(path))
    stores = {
        "semantic": describe_store(store, chosen),
        "visual": describe_pixels(ensemble.config.image_size),
    }
    experts = (*(store.names[p] for p in order), VISUAL)
    provenance = _describe([rated], params, experts, stores)
    provenance["imported"] = {"file": checkpoint.name, "sha256": file_sha256(checkpoint)}
    run = Run(folder, ensemble, params, provenance, _known_images([rated]))
    save_run(run, [], prompts)
    return run


def _describe(
    data: Sequence[RatedData], params: Params, experts: Sequence[str], stores: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe a fit: the first data set at the top, further ones under `others`.

    With versions of libraries, and the working folder's git revision where there is one.
    """
    first, *others = (one.description for one in data)
    git = ["git", "rev-parse", "HEAD"]
    try:
        revision = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = None
    return {
        "preset": params.fit.preset,
        **first,
        "trained_on": [one.name for one in data],
        "others": others,
        "experts": list(experts),
        "stores": dict(stores),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "git_revision": revision,
    }


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


def _known_images(data: Sequence[RatedData]) -> frozenset[str]:
    """Ids of the images on a training or validation side, of some split of some data set."""
    frames = (one.splits for one in data)
    return frozenset(
        name for frame in frames for name in frame.loc[frame["side"] != "test", "image_id"]
    )
