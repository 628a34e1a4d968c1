"""Make and evaluate a run from what lies under `cache/`: the steps behind `fit` and `evaluate`.

A run comes from a fit, of the preset that the settings name, or from a checkpoint of the authors.
Its own folder has the results on its first data set and target; those of further targets are in
`targets/NAME`, of further data sets that it was trained on in `datasets/NAME`, of others in
`cross/NAME` (cross.py), each a folder of the same files.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from agiqa.core.errors import AgiqaError
from agiqa.core.hashing import file_sha256
from agiqa.core.json_text import write_json
from agiqa.core.params import Params
from agiqa.core.run_folders import require_free_run
from agiqa.data.datasets.origin import require_fresh
from agiqa.data.datasets.table import ImagesTable, read_table
from agiqa.data.prompts import prompt_set_text
from agiqa.data.splits import leaks, read_protocol, split_digest
from agiqa.runs.evaluate import Evaluation, Exam, evaluate, write_evaluation
from agiqa.runs.files import CURVES, Run, environment, load_run, save_run
from agiqa.stage2.features import Features, choose_vectors, describe_store
from agiqa.stage2.fit_data import (
    Material,
    Sides,
    joined,
    load_material,
    packs,
    rated_splits,
    require_settings,
    store_path,
    targets_of,
)
from agiqa.stage2.light.ensemble import Ensemble
from agiqa.stage2.light.training import fit
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.inputs import (
    PaperInputs,
    experts,
    require_width,
    semantic_order,
    without_left_out,
)
from agiqa.stage2.paper.pixels import describe_pixels
from agiqa.stage2.paper.reference_checkpoint import read_reference_checkpoint
from agiqa.stage2.paper.resume import FitState
from agiqa.stage2.paper.training import fit_paper, start_processes
from agiqa.stage2.presets import LIGHT
from agiqa.stage2.targets import Truth
from agiqa.store import read_pack
from agiqa.store.cache_folder import at_hand

log = logging.getLogger(__name__)

TARGETS, DATASETS = "targets", "datasets"  # folders of further results
LIST = "targets.json"  # which target's results are where


class Fitted(NamedTuple):
    """What a fit of either preset comes to."""

    ensemble: Ensemble | PaperEnsemble
    curves: list[dict[str, Any]]
    experts: tuple[str, ...]  # in the gate's order
    stores: Mapping[str, Any]  # what the inputs were made by
    members: int = 1  # networks a split
    states: tuple[FitState, ...] = ()  # to be forgotten once the run is written


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
    if len(set(datasets)) < len(datasets):
        raise AgiqaError(f"Each data set is given once, found {' '.join(datasets)}.")
    if len(datasets) > 1 and params.fit.preset != LIGHT:
        raise AgiqaError(
            f"The preset {params.fit.preset} learns from one data set, found "
            f"{', '.join(datasets)}: give one, or --preset {LIGHT}."
        )
    prompts = prompt_set_text(params.semantic.prompts)
    materials = [load_material(name, cache, params) for name in datasets]
    first = materials[0]
    params = replace(params, fit=replace(params.fit, protocol=first.protocol))
    folder = out or runs / "+".join(datasets) / extractor / first.protocol
    require_free_run(folder, overwrite)
    for each in materials:
        require_settings(each.features.stores, params)
    fitted = _fit(*joined(materials), params)
    if fitted is None:
        return None
    provenance = _provenance(materials, params, fitted)
    provenance["fit_seconds"] = round(time.monotonic() - started, 1)
    images = _seen([material.splits for material in materials])
    save_run(folder, fitted.ensemble, params, provenance, fitted.curves, prompts, images)
    _log_curves(folder, fitted.curves)
    for state in fitted.states:
        state.remove()
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
    params = replace(
        params, fit=replace(params.fit, preset="paper", protocol="paper", answers=False)
    )
    cache = at_hand(cache, dataset, packs(params))
    table = read_table(cache / dataset)
    columns = targets_of(params.fit, table)
    require_fresh(table, cache / dataset, "paper")
    splits = read_protocol(cache / dataset, table, "paper")
    digest = split_digest(splits)
    path = store_path(table, cache / dataset, params.semantic)
    store = read_pack(path)
    table = without_left_out(table, store)
    splits = rated_splits(splits, table, columns)
    chosen = choose_vectors(store.names, params.fit.vectors, str(path))
    order = semantic_order(store.names, chosen, str(path))
    ensemble = read_reference_checkpoint(checkpoint, params.paper.network)
    require_width(store.vectors.shape[-1], ensemble.config.semantic_width, str(path))
    stores = {
        "semantic": describe_store(store, chosen),
        "visual": describe_pixels(ensemble.config.image_size),
    }
    prompt_names = [store.names[p] for p in order]
    fitted = Fitted(ensemble, [], experts(prompt_names), stores)
    data = _about(table, splits, digest, "paper", columns)
    provenance = _described([data], params, fitted)
    provenance["imported"] = {"file": checkpoint.name, "sha256": file_sha256(checkpoint)}
    images = _seen([splits])
    save_run(folder, ensemble, params, provenance, [], prompts, images)
    return Run(folder, ensemble, params, provenance, images)


def _fit(
    features: Features | PaperInputs, truth: Truth, sides: Sides, params: Params
) -> Fitted | None:
    """Fit as the preset says; None in all but the first of several processes."""
    given = (features.experts, features.stores)
    if isinstance(features, Features):
        ensemble, curves = fit(features, truth, sides, params.fit)
        return Fitted(ensemble, curves, *given, params.fit.members)
    accelerator = start_processes()
    paper = fit_paper(features, truth.mos[:, 0], sides, params, accelerator)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return None
    return Fitted(paper.ensemble, paper.curves, *given, states=paper.states)


def _provenance(materials: Sequence[Material], params: Params, fitted: Fitted) -> dict[str, Any]:
    """What a fitted run was made from."""
    return _described(
        [_about(m.table, m.splits, m.digest, m.protocol, m.columns) for m in materials],
        params,
        fitted,
    )


def _about(
    table: ImagesTable, splits: pd.DataFrame, digest: str, protocol: str, columns: Sequence[str]
) -> dict[str, Any]:
    """One data set of a run."""
    scores = table.frame[list(columns)]
    return {
        "dataset": table.name,
        "synthetic": table.synthetic,
        "licence": table.licence,
        "source": table.source,
        "images": len(table.frame),
        "target": columns[0],
        "targets": list(columns),
        "protocol": protocol,
        "seeds": [int(seed) for seed in splits["seed"].unique()],
        "mos": {"low": float(scores[columns[0]].min()), "high": float(scores[columns[0]].max())},
        "splits_file": f"{protocol}.csv",
        "splits_sha256": digest,
        "scores_sha256": _scores_digest(table, columns),
        "leaks": [vars(leak) for leak in leaks(splits, table)],
    }


def _seen(splits: Sequence[pd.DataFrame]) -> frozenset[str]:
    """Ids of the images on a training or validation side, of some split of some data set."""
    return frozenset(
        name for frame in splits for name in frame.loc[frame["side"] != "test", "image_id"]
    )


def _scores_digest(table: ImagesTable, columns: Sequence[str]) -> str:
    """A sha256 of the scores that each image has."""
    rows = table.frame[["image_id", "path", *columns]].sort_values("path")
    return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def _described(data: Sequence[Mapping[str, Any]], params: Params, fitted: Fitted) -> dict[str, Any]:
    """The first data set's description at the top, further ones under `others`."""
    return {
        "preset": params.fit.preset,
        **data[0],
        "trained_on": [each["dataset"] for each in data],
        "others": [dict(each) for each in data[1:]],
        "members": fitted.members,
        "experts": list(fitted.experts),
        "stores": dict(fitted.stores),
        **environment(),
    }


def evaluate_run(folder: Path, cache: Path | str) -> list[Evaluation]:
    """Evaluate the run in `folder` on the test sides of all that it was trained on.

    Returns:
        An evaluation for each data set and target, the run's own first; all are written into it.
    """
    run = load_run(folder)
    found: list[Evaluation] = []
    for place, about in enumerate([run.provenance, *run.provenance.get("others", [])]):
        params = replace(
            run.params,
            fit=replace(
                run.params.fit,
                target=",".join(about["targets"]),
                protocol=str(about["protocol"]),
            ),
        )
        material = load_material(str(about["dataset"]), cache, params)
        _require_same_splits(run, about, material)
        now = _scores_digest(material.table, material.columns)
        if about.get("scores_sha256", now) != now:
            log.warning(
                "%s was fitted on other scores than '%s' has now, and is measured on those: run "
                "`agiqa fit` again",
                folder,
                material.name,
            )
        exam = Exam(
            material.table, material.features, material.sides, material.columns,
            material.protocol, place, splits_sha256=material.digest, leaks=about["leaks"],
        )  # fmt: skip
        base = folder / DATASETS / material.name if place else folder
        evaluations = evaluate(run, exam)
        write_evaluations(base, evaluations)
        found += evaluations
    names = list(run.provenance["targets"])
    (folder / TARGETS).mkdir(exist_ok=True)  # an output of DVC's, which likes neither optional
    write_json(folder / TARGETS / LIST, {"run": names[0], "here": names[1:]})  # nor empty ones
    return found


def write_evaluations(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Write the first target's results into `folder`, those of others into `targets/NAME`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / TARGETS, ignore_errors=True)
    write_evaluation(folder, evaluations[0])
    for each in evaluations[1:]:
        inner = folder / TARGETS / str(each.metrics["target"])
        inner.mkdir(parents=True)
        write_evaluation(inner, each)


def _require_same_splits(run: Run, about: Mapping[str, Any], material: Material) -> None:
    """Refuse splits that changed after the fit: what was trained on could now be tested."""
    made = about.get("splits_sha256")  # runs of earlier versions have none
    if made and made != material.digest:
        raise AgiqaError(
            f"{run.folder} was fitted on other {about['protocol']} splits (sha256 "
            f"{made[:12]}) than the split file has now ({material.digest[:12]}): run `agiqa fit` "
            "again."
        )


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
