"""The card of a published run: what it was fitted on, how it was tested, what it may not do.

In the hub's format (huggingface.co/docs/hub/model-cards): YAML between two lines of dashes, with
the held-out figures as a model-index, then Markdown (model_card.md.j2).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from agiqa import __version__
from agiqa.core.errors import printable
from agiqa.data.splits.files import LEAST_FITTED
from agiqa.runs.files import Run
from agiqa.runs.records import read_metrics, result_files
from agiqa.runs.score_notes import kind
from agiqa.stage2.presets import LIGHT, MIXTURE
from agiqa.views.kit.number import DASH, dashes, in_percent, interval, number

TEMPLATE = Path(__file__).with_suffix(".md.j2")
SHOWN = {  # figure of metrics.json: the hub's name of it, and ours
    "srcc": ("spearmanr", "SRCC"),
    "plcc_logistic": ("pearsonr", "PLCC after the 4-parameter logistic"),
    "rmse_raw": ("rmse", "RMSE, raw"),
}
SHARED = {"same_prompt": "prompt", "same_group": "group", "same_file": "file"}
TASK = "image-quality-assessment"


def model_card(
    run: Run, address: str, licence: str = "unknown", notes: str = "", results: bool = False
) -> str:
    """Write the card of an evaluated run.

    Args:
        run: the run.
        address: where it will be found: a folder's name, or hf://user/name.
        licence: of the run, as the hub spells it.
        notes: in Markdown, of the publisher's own.
        results: whether ratings and scores of the tested images are published too.

    Raises:
        AgiqaError: the run is not evaluated, or its figures are damaged.
    """
    name = address.rpartition("/")[2]
    needed = ("models", "dataset", "target", "protocol")
    inside = [path.parent for path in result_files(run.folder, others=False)]
    measured = [read_metrics(folder, needed) for folder in dict.fromkeys([run.folder, *inside])]
    params, about = run.params, run.provenance
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, finalize=_cell, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        front_matter=Verbatim(_front_matter(measured, name, licence)),
        name=name,
        address=address,
        scores=kind(about),
        synthetic=about["synthetic"],
        semantic=params.semantic.model,
        prompts=", ".join(about["stores"]["semantic"]["names"]),
        visual=params.visual if params.fit.preset == LIGHT else None,
        preset=params.fit.preset,
        experts=", ".join(about["experts"]),
        data_sets=[_data_set(data) for data in (about, *about["others"])],
        licence=licence,
        version=about.get("versions", {}).get("agiqa", __version__),
        figures=[_figures(metrics) for metrics in measured],
        images=len(run.images),
        results=results,
        notes=Verbatim(notes.strip()),
    )


class Verbatim(str):
    """Text of several lines that is put in as it is."""

    __slots__ = ()


def _cell(value: object) -> object:
    """What stands in the card: on one line, and in one cell of a table."""
    plain = isinstance(value, str) and not isinstance(value, Verbatim)
    return printable(value).replace("|", "\\|") if plain else value


def _front_matter(results: Sequence[Mapping[str, Any]], name: str, licence: str) -> str:
    """The YAML at the top, in which the hub looks for licence, tags and figures."""
    from huggingface_hub import EvalResult, ModelCardData

    measured = [
        EvalResult(
            task_type=TASK,
            task_name="Image quality assessment",
            dataset_type=str(metrics["dataset"]),
            dataset_name=str(metrics["dataset"]),
            dataset_config=f"{metrics['target']}, {metrics['protocol']}",
            dataset_split="test",
            metric_type=hub_name,
            metric_name=f"{heading}, median over {metrics.get('splits', 1)} test sides",
            metric_value=round(_figure(metrics, figure)["median"], 4),
            metric_args={"95 %": _bounds(metrics, figure)},
        )
        for metrics in results
        for figure, (hub_name, heading) in SHOWN.items()
        if _figure(metrics, figure).get("median") is not None
    ]
    synthetic = any(metrics.get("synthetic") for metrics in results)
    data = ModelCardData(
        license=licence,
        library_name="agiqa",
        tags=[TASK, "ai-generated-images", *["synthetic-scores"] * synthetic],
        metrics=sorted({result.metric_type for result in measured}),
        model_name=name,
        eval_results=measured or None,
    )
    return str(data.to_yaml())


def _data_set(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of a data set that the run was fitted on."""
    source = f" ({about['source']})" if "://" in str(about.get("source", "")) else ""
    digests = {"scores": about.get("scores_sha256"), "splits": about.get("splits_sha256")}
    return {
        "name": f"{about['dataset']}{source}",
        "images": about["images"],
        "targets": ", ".join(about["targets"]),
        "scale": " to ".join(number(about["mos"][end], 2) for end in ("low", "high")),
        "licence": about.get("licence", "unknown"),
        "digests": ", ".join(f"{what} {sha}" for what, sha in digests.items() if sha) or DASH,
    }


def _figures(metrics: Mapping[str, Any]) -> dict[str, str]:
    """A row of the table of held-out figures, and what test sides share with training."""
    leaks = metrics.get("leaks") or []
    test = sum(leak["test"] for leak in leaks)
    shared = [
        f"{sum(leak.get(key, leak['same_group']) for leak in leaks):,} a {what}"
        for key, what in SHARED.items()
    ]
    medians = {name: number(_figure(metrics, name).get("median")) for name in SHOWN}
    return {
        "about": ", ".join(str(metrics[key]) for key in ("dataset", "target", "protocol")),
        "srcc": f"{medians['srcc']} ({_bounds(metrics, 'srcc')})",
        "plcc": medians["plcc_logistic"],
        "rmse": medians["rmse_raw"],
        "held": in_percent((metrics.get("coverage") or {}).get("covered")),
        "why": _trial(metrics, leaks)
        + dashes([{name: _figure(metrics, name) for name in SHOWN}], ("srcc",)),
        "leaks": f"of {test:,} in {len(leaks)} splits, {', '.join(shared)}"
        if test
        else "not counted",
    }


def _trial(metrics: Mapping[str, Any], leaks: Sequence[Mapping[str, Any]]) -> str:
    """Say that the test sides were too few for results, as `prepare` did; "" if they were not."""
    least = min((leak["test"] for leak in leaks), default=LEAST_FITTED)
    few = (metrics.get("intervals") or {}).get("too_few", "")
    if not few and least >= LEAST_FITTED:
        return ""
    why = f" ({few})" if few else ""
    return f"**A trial**: a test side has {least} images{why}, too few for results. "


def _figure(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A figure of the mixture, whose scores the run gives; empty where it was not measured."""
    figure: Mapping[str, Any] = metrics["models"].get(MIXTURE, {}).get(name, {})
    return figure


def _bounds(metrics: Mapping[str, Any], name: str) -> str:
    return interval(_figure(metrics, name)).replace("…", " to ")
