"""Runs on disk: a folder with the ensemble as safetensors, its settings and its provenance.

    model.safetensors   projections, experts, mixtures and ridges of every split; of the paper
                        presets the network's weights, as split.N.…
    params.yaml         all settings
    prompts.yaml        the prompt set, as it was
    provenance.json     data, stores with fingerprints, split, seeds, versions, git revision
    curves.csv          learning curves
    predictions.csv     test side, by `evaluate`, as all that follow
    metrics.json        every figure
    summary.json        the medians, for `dvc metrics`
    scatter.csv         mean score of each tested image, for `dvc plots`
    targets/NAME, datasets/NAME, cross/NAME   the last four for a further target, for a further
                        data set that it was trained on, for one that it was not

The only writer of such a folder, and with `records` the only reader. No pickles.
A run is written beside its place and moved there whole.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from safetensors import SafetensorError

from agiqa.core.errors import AgiqaError, one_line, printable, some
from agiqa.core.json_text import write_json
from agiqa.core.model_names import ZERO_SHOT
from agiqa.core.params import Params, dump, from_tree, of_a_run, without_permission
from agiqa.core.regular_files import file_sha256
from agiqa.core.run_folders import CARD, PROVENANCE
from agiqa.core.trees import read_yaml
from agiqa.core.weight_files import read_header, require_entries, require_finite
from agiqa.runs.records import (
    LAYOUT,
    METRICS,
    PREDICTIONS,
    SCORES_WITH,
    read_metrics,
    read_provenance,
    remedy,
)
from agiqa.stage2.presets import MIXTURE
from agiqa.store import IMPORTED

if TYPE_CHECKING:  # they bring torch, which results alone do without
    from agiqa.stage2.contract import Expected, Header
    from agiqa.stage2.predictors import AnyEnsemble

MODEL, PARAMS = "model.safetensors", "params.yaml"
PROMPTS = "prompts.yaml"
PUBLISHED = (MODEL, PARAMS, PROMPTS)  # what a published run scores with
CURVE = ("model", "seed", "epoch", "train_loss", "val_srcc", "val_plcc")  # columns of curves.csv
CURVES = "curves.csv"
SUMMARY, SCATTER = "summary.json", "scatter.csv"
TARGETS, DATASETS, CROSS = "targets", "datasets", "cross"  # folders of further results in a run
# What results say of themselves that differs from their run's provenance.
OWN = ("dataset", "target", "protocol", "synthetic", "splits_sha256", "leaks", "trained_on", "mos")
IMAGES = "images"  # the tensor (N, 32) of ids of images that the run has seen


@dataclass(frozen=True)
class Run:
    """A run read from disk."""

    folder: Path
    ensemble: "AnyEnsemble"
    params: Params
    provenance: Mapping[str, Any]
    images: frozenset[str] = frozenset()  # ids that some split trained or validated on

    @property
    def name(self) -> str:
        """Its name where it is published, else the last two parts of its folder: demo/grouped."""
        return str(self.provenance.get("published", "/".join(self.folder.resolve().parts[-2:])))

    def __repr__(self) -> str:
        about = self.provenance
        return (
            f"Run {printable(self.folder)}\n"
            f"  preset    {self.params.fit.preset}, {len(about['seeds'])} splits\n"
            f"  data      {', '.join(about['trained_on'])}, {', '.join(about['targets'])}, "
            f"protocol {about['protocol']}, {len(self.images):,} images trained or validated on\n"
            f"  scale     {about['mos']['low']:.2f} to {about['mos']['high']:.2f}\n"
            f"  experts   {', '.join(about['experts'])}"
        )


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` writes of one target: into a run, or into a folder of results in it."""

    predictions: pd.DataFrame  # model, seed, path, image_id, generator, group, mos, score, gate_*
    metrics: dict[str, Any]

    def __repr__(self) -> str:
        """Say in a line what was measured and the median SRCC of each model."""
        about = [str(self.metrics[name]) for name in ("dataset", "target", "protocol")]
        models = self.metrics["models"].items()
        srcc = {model: figures["srcc"]["median"] for model, figures in models}
        return f"Evaluation({', '.join(about)}; median SRCC {srcc})"


@contextmanager
def whole_run(folder: Path) -> Iterator[Path]:
    """Give an empty folder, which takes the place of `folder` once all is written into it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        staged = Path(temporary) / "run"
        staged.mkdir()
        yield staged
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        staged.rename(folder)


def save_run(run: Run, curves: Sequence[Mapping[str, Any]], prompts: str) -> None:
    """Write a run; one that stood there before is replaced only once the new one is whole.

    Raises:
        AgiqaError: the weights hold NaN or infinity, or the disk refuses them, such as for want of
            space.
    """
    import torch
    from safetensors.torch import save_file

    with whole_run(run.folder) as staged:
        tensors = run.ensemble.tensors()
        tensors[IMAGES] = torch.tensor(
            [list(bytes.fromhex(name)) for name in sorted(run.images)], dtype=torch.uint8
        ).reshape(-1, 32)
        try:
            require_finite(tensors)
        except ValueError as error:
            raise AgiqaError(
                f"{run.folder}: the fit came to no numbers ({error}): lower fit.lr, or see that "
                "the scores and vectors differ between images."
            ) from error
        try:
            save_file(tensors, staged / MODEL)
        except SafetensorError as error:  # it wraps what the disk said
            raise AgiqaError(
                f"{run.folder}: the run cannot be written ({error}); make room, or choose another "
                "folder (-o), then run `agiqa fit` again."
            ) from error
        (staged / MODEL).chmod(0o644)  # safetensors writes it for its owner alone
        (staged / PARAMS).write_text(dump(run.params, permissions=False), encoding="utf-8")
        (staged / PROMPTS).write_text(prompts, encoding="utf-8")
        about = {**run.provenance, **run.ensemble.provenance}
        write_json(staged / PROVENANCE, {"format": "agiqa-run", "layout": LAYOUT, **about})
        pd.DataFrame(curves, columns=CURVE).to_csv(
            staged / CURVES, index=False, float_format="%.6g"
        )


def load_run(folder: Path | str, remote_code: str = "") -> Run:
    """Read a run.

    Args:
        folder: the run's.
        remote_code: what the person here allows its model (`semantic.remote_code`); what the run
            itself says of that, of workers and of batches does not count.

    Raises:
        AgiqaError: no such run, a newer layout, or a damaged file.
    """
    import torch
    from safetensors.torch import load_file

    from agiqa.stage2.predictors import ENSEMBLES

    folder = Path(folder)
    provenance = load_provenance(folder)
    again = remedy(folder, provenance)
    require_as_published(folder, provenance)
    if missing := [name for name in SCORES_WITH if name not in provenance]:
        raise AgiqaError(f"{printable(folder / PROVENANCE)}: expected {some(missing)}; {again}.")
    try:
        tree = read_yaml(folder / PARAMS)
    except (OSError, ValueError) as error:
        raise AgiqaError(
            f"{printable(folder / PARAMS)}: damaged ({one_line(error)}); {again}."
        ) from error
    params = from_tree(without_permission(tree), printable(folder / PARAMS))
    provenance.setdefault("preset", params.fit.preset)
    header = read_header(folder / MODEL, again)
    try:
        expected = _expected(header, params, provenance)
        require_entries(header, expected)
        tensors = load_file(folder / MODEL)
        require_finite(tensors)
        ids = tensors.pop(IMAGES, torch.empty(0, 32))
        ensemble = ENSEMBLES[params.fit.preset].from_tensors(tensors, params, provenance)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise AgiqaError(
            f"{printable(folder / MODEL)}: does not fit its settings ({one_line(error)}); {again}."
        ) from error
    images = frozenset(bytes(row).hex() for row in ids.tolist())
    return Run(folder, ensemble, of_a_run(params, remote_code), provenance, images)


def require_as_published(
    folder: Path, provenance: Mapping[str, Any], names: Sequence[str] = PUBLISHED
) -> None:
    """Refuse a published run of which files are not those that were published.

    Raises:
        AgiqaError: one is missing or has other bytes.
    """
    digests = provenance.get("sha256", {}) if "published" in provenance else {}
    for name in names:
        try:
            damaged = name in digests and file_sha256(folder / name) != digests[name]
        except (OSError, ValueError):
            damaged = True
        if damaged:
            raise AgiqaError(
                f"{printable(folder / name)}: expected the file that was published, found none or "
                f"a damaged one: {remedy(folder, provenance)}"
            )


def require_unpublished(run: Run) -> None:
    """Refuse to write results, which name images, into a published run.

    Raises:
        AgiqaError: it is published; its card says what it holds.
    """
    if "published" in run.provenance:
        raise AgiqaError(
            f"{printable(run.folder)}: expected a run of `agiqa fit`, found the published run "
            f"'{run.name}', which gets no results (its card, {CARD}, has its figures): give the "
            "run that it was made from"
        )


def require_extractor(run: Run) -> None:
    """Refuse runs whose vectors nothing here can make of a new image."""
    prints = run.provenance["stores"]["semantic"]["fingerprints"]
    if any(made.get("extractor") == IMPORTED for made in prints):
        raise AgiqaError(
            f"{run.folder}: fitted on vectors that were imported (agiqa cache import-pt), and what "
            f"made them is known by name only (model: {prints[0].get('model')}), so new images "
            "cannot be scored: fit on vectors of `agiqa extract` for that."
        )


def prompt_set_of(run: Run) -> str:
    """The run's own prompt set, wherever it was fitted from.

    Raises:
        AgiqaError: it is not there, and the settings name a path of whoever made the run.
    """
    if (run.folder / PROMPTS).is_file():
        return str(run.folder / PROMPTS)
    name = run.params.semantic.prompts
    if not re.fullmatch(r"[\w.-]+", name) or name.endswith("yaml"):
        raise AgiqaError(
            f"{run.folder}: expected {PROMPTS}, found none, and semantic.prompts names no prompt "
            f"set but {name[:80]!r}: copy the run again."
        )
    return name


def load_provenance(folder: Path | str) -> dict[str, Any]:
    """The provenance of the run in `folder`, which must have all its files.

    Raises:
        AgiqaError: a file is missing, or provenance.json is damaged or of a newer layout.
    """
    folder = Path(folder)
    missing = [name for name in (MODEL, PARAMS, PROVENANCE) if not (folder / name).is_file()]
    provenance = {} if PROVENANCE in missing else read_provenance(folder)
    if missing:
        again = "make one with `agiqa fit`"
        if "published" in provenance:
            again = remedy(folder, provenance)
        raise AgiqaError(f"{printable(folder)}: not a run; expected {missing[0]}: {again}")
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
    return provenance | {name: metrics[name] for name in OWN if name in metrics}


def run_folder(results: Path) -> Path:
    """The run that a folder of results lies in, such as RUN/targets/NAME; a run is its own."""
    folder = results
    while not (folder / PROVENANCE).exists() and folder.parent.name in (TARGETS, DATASETS, CROSS):
        folder = folder.parent.parent
    return folder


def write_results(folder: Path, results: Evaluation) -> None:
    """Add predictions, metrics, their summary and the scatter to a run, or to a folder in it."""
    predictions, metrics = results.predictions, results.metrics
    predictions.to_csv(folder / PREDICTIONS, index=False, float_format="%.6g")
    main = predictions[predictions["model"].isin((MIXTURE, ZERO_SHOT))]
    scatter = main.groupby("path", as_index=False)[["mos", "score"]].mean()
    scatter.to_csv(folder / SCATTER, index=False, float_format="%.6g")
    summary = {
        model: {name: round(values["median"], 4) for name, values in figures.items()}
        for model, figures in metrics["models"].items()
    }
    write_json(folder / SUMMARY, summary)
    write_json(folder / METRICS, metrics)  # last: its presence says that all is there


def write_all_results(folder: Path, results: Sequence[Evaluation]) -> None:
    """Write the first target's results into `folder`, those of others into `targets/NAME`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / TARGETS, ignore_errors=True)
    write_results(folder, results[0])
    for further in results[1:]:
        inner = folder / TARGETS / str(further.metrics["target"])
        inner.mkdir(parents=True)
        write_results(inner, further)


def _expected(header: "Header", params: Params, provenance: Mapping[str, Any]) -> "Expected":
    """Every tensor that the run's weights must hold, with its possible types and its shape.

    Raises:
        ValueError: the settings or the provenance tell of more than the file holds.
    """
    splits, experts = len(provenance["seeds"]), len(provenance["experts"])
    if splits * experts > len(header):
        raise ValueError(
            f"{splits} splits of {experts} experts are told of, and the file holds {len(header)} "
            "tensors"
        )
    from agiqa.stage2.predictors import ENSEMBLES

    expected = ENSEMBLES[params.fit.preset].expected(header, params, provenance)
    if IMAGES in header:
        expected[IMAGES] = (("U8",), (*header[IMAGES].shape[:1], 32))
    return expected
