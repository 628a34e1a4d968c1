"""Runs on disk: a folder with the ensemble as safetensors, its settings and its provenance.

    model.safetensors   projections, ridges and regressors of every split; of the paper presets
                        the network's weights, as split.N.…
    params.yaml         all settings
    prompts.yaml        the prompt set, as it was
    provenance.json     data, stores with fingerprints, split, seeds, versions, git revision
    curves.csv          learning curves
    predictions.csv     test side, by `evaluate`, as all that follow
    metrics.json        every figure
    summary.json        the medians, for `dvc metrics`
    scatter.csv         mean score of each tested image, for `dvc plots`

No pickles. A run is written beside its place and moved there whole.
"""

import importlib.metadata
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agiqa.core.errors import AgiqaError, one_line, printable, some
from agiqa.core.json_text import write_json
from agiqa.core.params import Params, dump, from_tree, of_a_run, without_permission
from agiqa.core.run_folders import PROVENANCE
from agiqa.core.trees import read_yaml
from agiqa.core.weight_files import read_header, require_entries, require_finite
from agiqa.runs.records import LAYOUT, SCORES_WITH, read_metrics, read_provenance
from agiqa.runs.tensors import IMAGES, expected_tensors, paper_config
from agiqa.stage2.light.ensemble import RIDGES, VARIANTS, Ensemble, SplitModel
from agiqa.stage2.light.kernel import KernelRidge
from agiqa.stage2.light.moe import MixtureOfExperts
from agiqa.stage2.light.projection import Projection
from agiqa.stage2.light.ridge import Ridge
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.presets import LIGHT
from agiqa.stage2.targets import Scales

MODEL, PARAMS = "model.safetensors", "params.yaml"
PROMPTS = "prompts.yaml"
CURVE = ("model", "seed", "epoch", "train_loss", "val_srcc", "val_plcc")  # columns of curves.csv
CURVES = "curves.csv"
SUMMARY, SCATTER = "summary.json", "scatter.csv"
INSIDE = ("targets", "datasets", "cross")  # folders of further results in a run
# What results say of themselves that differs from their run's provenance.
TOLD = ("dataset", "target", "protocol", "synthetic", "splits_sha256", "leaks", "trained_on", "mos")
LIBRARIES = ("torch", "transformers", "scikit-learn", "scipy", "numpy", "zarr", "agiqa")


@dataclass(frozen=True)
class Run:
    """A run read from disk."""

    folder: Path
    ensemble: Ensemble | PaperEnsemble  # of the preset light, or of a paper preset
    params: Params
    provenance: Mapping[str, Any]
    images: frozenset[str] = frozenset()  # ids that some split trained or validated on


def save_run(
    folder: Path,
    ensemble: Ensemble | PaperEnsemble,
    params: Params,
    provenance: Mapping[str, Any],
    curves: list[dict[str, Any]],
    prompts: str,
    images: Collection[str] = (),
) -> None:
    """Write a run; one that stood there before is replaced only once the new one is whole.

    Raises:
        AgiqaError: the weights hold NaN or infinity, or the disk refuses them, such as for want of
            space.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        staged = Path(temporary) / "run"
        staged.mkdir()
        record = {"format": "agiqa-run", "layout": LAYOUT, **provenance}
        if isinstance(ensemble, PaperEnsemble):
            record["network"] = asdict(ensemble.config)
            tensors = _paper_tensors(ensemble)
        else:
            tensors = _tensors(ensemble)
        tensors[IMAGES] = torch.tensor(
            [list(bytes.fromhex(name)) for name in sorted(images)], dtype=torch.uint8
        ).reshape(-1, 32)
        try:
            require_finite(tensors)
        except ValueError as error:
            raise AgiqaError(
                f"{folder}: the fit came to no numbers ({error}): lower fit.lr, or see that the "
                "scores and vectors differ between images."
            ) from error
        try:
            save_file(tensors, staged / MODEL)
        except SafetensorError as error:  # it wraps what the disk said
            raise AgiqaError(
                f"{folder}: the run cannot be written ({error}); make room, or choose another "
                "folder (-o), then run `agiqa fit` again."
            ) from error
        (staged / MODEL).chmod(0o644)  # safetensors writes it for its owner alone
        (staged / PARAMS).write_text(dump(params, permissions=False), encoding="utf-8")
        (staged / PROMPTS).write_text(prompts, encoding="utf-8")
        write_json(staged / PROVENANCE, record)
        pd.DataFrame(curves, columns=CURVE).to_csv(
            staged / CURVES, index=False, float_format="%.6g"
        )
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        staged.rename(folder)


def load_run(folder: Path, remote_code: str = "") -> Run:
    """Read a run.

    Args:
        folder: the run's.
        remote_code: what the person here allows its model (`semantic.remote_code`); what the run
            itself says of that, of workers and of batches does not count.

    Raises:
        AgiqaError: no such run, a newer layout, or a damaged file.
    """
    provenance, again = load_provenance(folder), "run `agiqa fit` again"
    if lacking := [name for name in SCORES_WITH if name not in provenance]:
        raise AgiqaError(f"{printable(folder / PROVENANCE)}: expected {some(lacking)}; {again}.")
    try:
        tree = read_yaml(folder / PARAMS)
    except (OSError, ValueError) as error:
        raise AgiqaError(
            f"{printable(folder / PARAMS)}: damaged ({one_line(error)}); {again}."
        ) from error
    params = from_tree(without_permission(tree), printable(folder / PARAMS))
    provenance.setdefault("preset", params.fit.preset)
    light = params.fit.preset == LIGHT
    header = read_header(folder / MODEL, again)
    try:
        require_entries(header, expected_tensors(header, params, provenance))
        tensors = load_file(folder / MODEL)
        require_finite(tensors)
        seen = tensors.pop(IMAGES, torch.empty(0, 32))
        ensemble = (_ensemble if light else _paper_ensemble)(tensors, params, provenance)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise AgiqaError(
            f"{printable(folder / MODEL)}: does not fit its settings ({one_line(error)}); {again}."
        ) from error
    images = frozenset(bytes(row).hex() for row in seen.tolist())
    return Run(folder, ensemble, of_a_run(params, remote_code), provenance, images)


def load_provenance(folder: Path) -> dict[str, Any]:
    """The provenance of the run in `folder`, which must have all its files."""
    for name in (MODEL, PARAMS, PROVENANCE):
        if not (folder / name).is_file():
            raise AgiqaError(
                f"{printable(folder)}: not a run; expected {name}. Make one with `agiqa fit`."
            )
    provenance = read_provenance(folder)
    provenance.setdefault("targets", [provenance["target"]])
    provenance.setdefault("trained_on", [provenance["dataset"]])
    provenance.setdefault("others", [])
    return provenance


def provenance_of(results: Path) -> dict[str, Any]:
    """The provenance of a run, or of a folder of results in it, in the words of these results.

    Raises:
        AgiqaError: neither is it a run, nor does it lie in one.
    """
    run = run_folder(results)
    provenance = load_provenance(run)
    if run == results:
        return provenance
    metrics = read_metrics(results)
    return provenance | {name: metrics[name] for name in TOLD if name in metrics}


def run_folder(results: Path) -> Path:
    """The run that a folder of results lies in, such as RUN/targets/NAME; a run is its own."""
    folder = results
    while not (folder / PROVENANCE).exists() and folder.parent.name in INSIDE:
        folder = folder.parent.parent
    return folder


def environment() -> dict[str, Any]:
    """Library versions, and the git revision of the working folder where there is one."""
    done = (
        subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        if shutil.which("git")
        else None
    )
    revision = done.stdout.strip() if done is not None and done.returncode == 0 else None
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"versions": versions, "git_revision": revision}


def _tensors(ensemble: Ensemble) -> dict[str, torch.Tensor]:
    """Every array under a name such as `split.0.visual.components` or `moe.head.weight`."""
    arrays: dict[str, np.ndarray] = {}
    for place, split in enumerate(ensemble.splits):
        parts = {"visual": split.visual}
        parts |= {f"semantic.{p}": each for p, each in enumerate(split.semantic)}
        for name, part in parts.items():
            arrays[f"split.{place}.{name}.mean"] = part.mean
            arrays[f"split.{place}.{name}.scale"] = part.scale
            arrays[f"split.{place}.{name}.components"] = part.components
        for expert, kernel in enumerate(split.kernels):
            arrays[f"split.{place}.kernel.{expert}.anchors"] = kernel.anchors
            arrays[f"split.{place}.kernel.{expert}.dual"] = kernel.dual
            arrays[f"split.{place}.kernel.{expert}.gamma"] = np.array(kernel.gamma)
        for name, ridge in split.ridges.items():
            arrays[f"split.{place}.{name}.weights"] = ridge.weights
            arrays[f"split.{place}.{name}.bias_alpha"] = np.stack([ridge.bias, ridge.alpha])
        arrays[f"split.{place}.mos"] = np.stack([split.scales.mean, split.scales.sd])
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    for variant, regressor in ensemble.regressors.items():
        tensors |= {f"{variant}.{name}": w for name, w in regressor.state_dict().items()}
    return tensors


def _ensemble(
    tensors: Mapping[str, torch.Tensor], params: Params, provenance: Mapping[str, Any]
) -> Ensemble:
    prompts = len(provenance["experts"]) - 1
    if provenance["layout"] == 1:
        tensors = _with_targets(tensors)

    def projection(key: str) -> Projection:
        return Projection(
            *(tensors[f"{key}.{part}"].numpy() for part in ("mean", "scale", "components"))
        )

    splits = []
    for place, seed in enumerate(provenance["seeds"]):
        key = f"split.{place}"
        scales = Scales(*tensors[f"{key}.mos"].numpy())
        ridges = {
            name: Ridge(
                tensors[f"{key}.{name}.weights"].numpy(),
                *tensors[f"{key}.{name}.bias_alpha"].numpy(),
            )
            for name in RIDGES
        }
        semantic = tuple(projection(f"{key}.semantic.{p}") for p in range(prompts))
        kernels = tuple(
            KernelRidge(
                tensors[f"{key}.kernel.{expert}.anchors"].numpy(),
                tensors[f"{key}.kernel.{expert}.dual"].numpy(),
                float(tensors[f"{key}.kernel.{expert}.gamma"]),
            )
            for expert in range(prompts + 1)
        )
        visual = projection(f"{key}.visual")
        splits.append(SplitModel(seed, visual, semantic, kernels, ridges, scales))
    regressors = {}
    for variant in VARIANTS:
        regressor = MixtureOfExperts(
            models=len(splits) * params.fit.members,
            visual=splits[0].visual.components.shape[1] if variant != "semantic" else 0,
            semantic=splits[0].semantic[0].components.shape[1],
            prompts=prompts if variant != "visual" else 0,
            hidden=params.fit.hidden,
            gate=params.fit.gate,
            dropout=params.fit.dropout,
            noise=params.fit.feature_noise,
            targets=splits[0].scales.mean.shape[1],
            datasets=len(splits[0].scales.mean),
        )
        prefix = f"{variant}."
        state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        regressor.load_state_dict(state)
        regressors[variant] = regressor.eval()
    return Ensemble(tuple(splits), regressors, params.fit.members)


def _with_targets(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a run of layout 1 as layout 2 has them."""
    found = dict(tensors)
    for name in tensors:
        split, _, part = name.rpartition(".")
        if name.endswith(".dual"):
            found[name] = tensors[name][:, None]
        elif part == "mos":
            found[name] = tensors[name][:, None, None]
        elif part in ("weights", "bias_alpha"):
            mean, sd = tensors[f"{split.rpartition('.')[0]}.mos"].tolist()
            if part == "weights":
                found[name] = tensors[name][:, None] / sd
            else:
                bias, alpha = tensors[name].tolist()
                found[name] = torch.tensor([[(bias - mean) / sd], [alpha]], dtype=torch.float64)
    return found


def _paper_tensors(ensemble: PaperEnsemble) -> dict[str, torch.Tensor]:
    """Every weight under a name such as `split.0.gating.weight`."""
    return {
        f"split.{place}.{name}": tensor
        for place, weights in enumerate(ensemble.weights)
        for name, tensor in weights.items()
    }


def _paper_ensemble(
    tensors: Mapping[str, torch.Tensor], params: Params, provenance: Mapping[str, Any]
) -> PaperEnsemble:
    """The networks, their weights still in the file."""
    weights: list[dict[str, torch.Tensor]] = [{} for _ in provenance["seeds"]]
    for name, tensor in tensors.items():
        _, place, inner = name.split(".", 2)
        weights[int(place)][inner] = tensor
    return PaperEnsemble(paper_config(provenance), weights)
