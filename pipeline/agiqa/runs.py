"""Make and evaluate a run from what lies under `cache/`: the steps behind `fit` and `evaluate`.

A run comes from a fit, of the preset that the settings name, or from a checkpoint of the authors.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from agiqa.cache_folder import at_hand
from agiqa.checkpoints import CURVES, Run, environment, load_run, save_run
from agiqa.datasets.table import ImagesTable, read_table
from agiqa.errors import AgiqaError
from agiqa.evaluation import Evaluation, evaluate, write_evaluation
from agiqa.feature_store import ANSWERS, pack_beside, read_pack, require_same
from agiqa.features import Features, choose_vectors, describe_store, load_features
from agiqa.fit_state import FitState
from agiqa.model.ensemble import Ensemble
from agiqa.model.paper_ensemble import PaperEnsemble
from agiqa.nano.parts import file_sha256
from agiqa.paper_inputs import (
    PaperInputs,
    experts,
    load_paper_inputs,
    require_width,
    semantic_order,
    without_left_out,
)
from agiqa.paper_training import fit_paper, start_processes
from agiqa.params import Params, Semantic, Visual
from agiqa.pixels import describe_pixels
from agiqa.presets import LIGHT
from agiqa.prompts import prompt_set_text, read_prompt_set
from agiqa.reference_checkpoint import read_reference_checkpoint
from agiqa.splits import default_protocol, leaks, read_protocol, side_rows, split_digest
from agiqa.training import fit

log = logging.getLogger(__name__)


# Kinds of extractors whose vectors are not what a store is named after.
OTHERS = {"semantic": ("vision",), "visual": ("lmm", "mplug_owl2", "dual_encoder")}

Sides = Mapping[int, Mapping[str, np.ndarray]]


class Fitted(NamedTuple):
    """What a fit of either preset comes to."""

    ensemble: Ensemble | PaperEnsemble
    curves: list[dict[str, Any]]
    experts: tuple[str, ...]  # in the gate's order
    stores: Mapping[str, Any]  # what the inputs were made by
    members: int = 1  # networks a split
    states: tuple[FitState, ...] = ()  # to be forgotten once the run is written


def fit_run(
    dataset: str,
    cache: Path | str,
    params: Params,
    out: Path | None,
    runs: Path,
    extractor: str = "",
) -> Run | None:
    """Fit `dataset` as `params` say and write the run to `out`, or to runs/dataset/protocol.

    The runs of an `extractor` other than the settings' own go to runs/dataset/extractor/protocol.

    `cache` is a folder here or a URL, which is read through a copy (cache_folder.py).

    Returns:
        The run; None in all but the first of the processes that share a fit (several GPUs).

    Raises:
        AgiqaError: no such table, split file, store or target.
    """
    started = time.monotonic()
    prompts = prompt_set_text(params.semantic.prompts)
    cache = at_hand(cache, dataset, _packs(params))
    table = read_table(cache / dataset)
    _require_target(table, params.fit.target)
    protocol = params.fit.protocol
    if protocol == "auto":
        protocol = default_protocol(table)
    params = replace(params, fit=replace(params.fit, protocol=protocol))
    splits = read_protocol(cache / dataset, table, protocol)
    digest = split_digest(splits)
    table, features = _features(table, cache / dataset, params)
    _require_settings(features.stores, params)
    splits, sides = _sides(table, splits, params.fit.target)
    mos = np.asarray(table.frame[params.fit.target].to_numpy(), dtype=np.float64)
    fitted = _fit(features, mos, sides, params)
    if fitted is None:
        return None
    folder = out or runs / dataset / extractor / protocol
    provenance = _provenance(dataset, table, splits, params, fitted, digest)
    provenance["fit_seconds"] = round(time.monotonic() - started, 1)
    save_run(folder, fitted.ensemble, params, provenance, fitted.curves, prompts)
    _log_curves(folder, fitted.curves)
    for state in fitted.states:
        state.remove()
    return Run(folder, fitted.ensemble, params, provenance)


def import_run(
    checkpoint: Path, dataset: str, cache: Path | str, params: Params, folder: Path
) -> Run:
    """Turn a checkpoint of the authors' code into a run on `dataset` by the protocol `paper`.

    Raises:
        AgiqaError: no such table, split file, store or target; or the checkpoint is damaged, of
            another kind, or made for semantic vectors of another width than the store's.
    """
    prompts = prompt_set_text(params.semantic.prompts)
    params = replace(
        params, fit=replace(params.fit, preset="paper", protocol="paper", answers=False)
    )
    cache = at_hand(cache, dataset, _packs(params))
    table = read_table(cache / dataset)
    _require_target(table, params.fit.target)
    splits = read_protocol(cache / dataset, table, "paper")
    digest = split_digest(splits)
    path = _store(table, cache / dataset, params.semantic)
    store = read_pack(path)
    table = without_left_out(table, store)
    splits, _ = _sides(table, splits, params.fit.target)
    chosen = choose_vectors(store.names, params.fit.vectors, str(path))
    order = semantic_order(store.names, chosen, str(path))
    ensemble = read_reference_checkpoint(checkpoint, params.paper.network)
    require_width(store.vectors.shape[-1], ensemble.config.semantic_width, str(path))
    stores = {
        "semantic": describe_store(store, chosen),
        "visual": describe_pixels(ensemble.config.image_size),
    }
    fitted = Fitted(ensemble, [], experts([store.names[p] for p in order]), stores)
    provenance = _provenance(dataset, table, splits, params, fitted, digest)
    provenance["imported"] = {"file": checkpoint.name, "sha256": file_sha256(checkpoint)}
    save_run(folder, ensemble, params, provenance, [], prompts)
    return Run(folder, ensemble, params, provenance)


def _fit(
    features: Features | PaperInputs, mos: np.ndarray, sides: Sides, params: Params
) -> Fitted | None:
    """Fit as the preset says; None in all but the first of several processes."""
    given = (features.experts, features.stores)
    if isinstance(features, Features):
        ensemble, curves = fit(features, mos, sides, params.fit)
        return Fitted(ensemble, curves, *given, params.fit.members)
    accelerator = start_processes()
    paper = fit_paper(features, mos, sides, params, accelerator)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return None
    return Fitted(paper.ensemble, paper.curves, *given, states=paper.states)


def _provenance(
    dataset: str,
    table: ImagesTable,
    splits: pd.DataFrame,
    params: Params,
    fitted: Fitted,
    digest: str,
) -> dict[str, Any]:
    """What a run was made from."""
    mos = table.frame[params.fit.target]
    return {
        "preset": params.fit.preset,
        "dataset": dataset,
        "synthetic": table.synthetic,
        "licence": table.licence,
        "source": table.source,
        "images": len(table.frame),
        "target": params.fit.target,
        "protocol": params.fit.protocol,
        "seeds": [int(seed) for seed in splits["seed"].unique()],
        "members": fitted.members,
        "mos": {"low": float(mos.min()), "high": float(mos.max())},
        "experts": list(fitted.experts),
        "stores": dict(fitted.stores),
        "splits_file": f"{params.fit.protocol}.csv",
        "splits_sha256": digest,
        "leaks": [vars(leak) for leak in leaks(splits, table)],
        **environment(),
    }


def evaluate_run(folder: Path, cache: Path | str) -> Evaluation:
    """Evaluate the run in `folder` on its data set's test sides and write the results into it."""
    run = load_run(folder)
    name = str(run.provenance["dataset"])
    dataset = at_hand(cache, name, _packs(run.params)) / name
    table, target = read_table(dataset), str(run.provenance["target"])
    _require_target(table, target)
    splits = read_protocol(dataset, table, str(run.provenance["protocol"]))
    _require_same_splits(run, splits)
    table, features = _features(table, dataset, run.params)
    evaluation = evaluate(run, table, features, _sides(table, splits, target)[1])
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


def _require_same_splits(run: Run, splits: pd.DataFrame) -> None:
    """Refuse splits that changed after the fit: what was trained on could now be tested."""
    made = run.provenance.get("splits_sha256")  # runs of earlier versions have none
    if made and made != (found := split_digest(splits)):
        raise AgiqaError(
            f"{run.folder} was fitted on other {run.provenance['protocol']} splits (sha256 "
            f"{made[:12]}) than the split file has now ({found[:12]}): run `agiqa fit` again."
        )


def _sides(table: ImagesTable, splits: pd.DataFrame, target: str) -> tuple[pd.DataFrame, Sides]:
    """The splits of the images that have vectors and a score, as a table and as row numbers.

    Raises:
        AgiqaError: no image of some side has a score.
    """
    splits = splits[splits["image_id"].isin(table.frame["image_id"])]
    unknown = splits["name"].isin(table.frame["path"][table.frame[target].isna()])
    if unknown.any():
        scored = splits[~unknown]
        for seed, side in splits[["seed", "side"]].drop_duplicates().itertuples(index=False):
            if not ((scored["seed"] == seed) & (scored["side"] == side)).any():
                raise AgiqaError(
                    f"No image on the {side} side of split {seed} has a score '{target}', which "
                    f"'{table.name}' keeps to itself for {table.frame[target].isna().sum()} "
                    "images: choose another --protocol."
                )
        log.warning(
            "%d images have no score '%s' and are left out of training and metrics",
            splits["name"][unknown].nunique(),
            target,
        )
        splits = scored
    return splits, side_rows(splits, table)


def _features(
    table: ImagesTable, folder: Path, params: Params
) -> tuple[ImagesTable, Features | PaperInputs]:
    """The table without what `extract --skip-bad` left out, and what the preset sees of it."""
    semantic, patterns = _store(table, folder, params.semantic), params.fit.vectors
    if params.fit.preset == LIGHT:
        visual = _store(table, folder, params.visual)
        return load_features(table, semantic, visual, patterns, params.fit.answers)
    if params.fit.answers:
        raise AgiqaError(
            f"fit.answers is for the preset {LIGHT}: the network of {params.fit.preset} takes two "
            "semantic vectors and no more. Set it to false."
        )
    with start_processes().main_process_first():  # the first one decodes the images for all
        size, workers = params.paper.network.image_size, params.paper.workers
        return load_paper_inputs(table, semantic, size, workers, patterns=patterns)


def _require_settings(stores: Mapping[str, Any], params: Params) -> None:
    """Refuse stores that other settings made: the run could never score.

    Raises:
        AgiqaError: names the vector, the field and both values.
    """
    prompts = read_prompt_set(params.semantic.prompts)
    texts, layers = list(prompts.prompts.values()), list(params.visual.layers)
    for kind, settings in (("semantic", params.semantic), ("visual", params.visual)):
        if stores[kind]["extractor"] == "pixels":  # of the paper presets
            continue
        for name, made in zip(stores[kind]["names"], stores[kind]["fingerprints"], strict=True):
            asked = {
                "dtype": settings.dtype,
                "attention": settings.attention,
                "stored_as": settings.precision,
                "pool": list(params.visual.pool),
            }
            wanted = {field: asked.get(field, value) for field, value in made.items()}
            if made.get("extractor") in OTHERS[kind]:
                wanted["extractor"] = f"one of {kind} vectors"
            if made.get("layer", layers[0]) not in layers:
                wanted["layer"] = f"one of {layers}"
            if isinstance(prompt := made.get("prompt"), Mapping):
                text = prompt["text"] if prompt["text"] in texts else " | ".join(texts)
                wanted["prompt"] = {**prompt, "text": text, "template": prompts.template}
            require_same(
                wanted,
                made,
                where=f"the {kind} store's vector '{name}'",
                advice="run `agiqa extract` with these settings, or give `fit` those of the store",
            )


def _packs(params: Params) -> list[str]:
    """Names of the packs that the preset reads."""
    semantic = f"{params.semantic.name}.{params.semantic.format}"
    if params.fit.preset != LIGHT:
        return [semantic]
    answers = [pack_beside(Path(semantic), ANSWERS).name] if params.fit.answers else []
    return [semantic, f"{params.visual.name}.{params.visual.format}", *answers]


def _store(table: ImagesTable, folder: Path, settings: Semantic | Visual) -> Path:
    store = folder / f"{settings.name}.{settings.format}"
    if not store.exists():
        raise AgiqaError(f"No feature store {store}; run `agiqa extract {table.name}`.")
    return store


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
