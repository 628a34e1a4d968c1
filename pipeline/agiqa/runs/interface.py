"""`agiqa.fit`, `evaluate` and `compare`: what the commands of these names and notebooks call.

Every path may be text; settings are a `Params`, or those of ./params.yaml. `agiqa.score` is in
score.py, since a fit needs nothing of stage 1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agiqa.core.errors import UsageError
from agiqa.core.params import Params, settings, with_extractor
from agiqa.core.urls import is_url
from agiqa.runs import compare as comparison
from agiqa.runs.evaluate import evaluate_run
from agiqa.runs.files import Evaluation, Run
from agiqa.runs.fit import fit_run


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
        out: the run's folder; by default `runs/DATASET/PROTOCOL`.
        replace: overwrite a run in that folder, and all that was made from it.
        cache: folder of images tables and feature stores, or its URL.
        runs: the folder of runs.

    Returns:
        The run, written to its folder; None in all but the first of the processes that share a
        fit (several GPUs).

    Raises:
        AgiqaError: no such data set, vectors, split, target or extractor, or a run in the folder.
    """
    return fit_run(
        [datasets] if isinstance(datasets, str) else list(datasets),
        _local_or_url(cache),
        with_extractor(settings(params), extractor),
        Path(out) if out is not None else None,
        Path(runs),
        extractor,
        replace,
    )


def evaluate(run: Run | Path | str, *, cache: Path | str = "cache") -> list[Evaluation]:
    """Score the test side of every split of a run, once, and write the results into its folder.

    Args:
        run: a run or its folder.
        cache: folder of images tables and feature stores, or its URL.

    Returns:
        An evaluation for each data set and target, the run's own first.

    Raises:
        AgiqaError: no run, or other splits or vectors than it was fitted on.
    """
    return evaluate_run(run.folder if isinstance(run, Run) else Path(run), _local_or_url(cache))


def compare(*runs: Run | Path | str, across_protocols: bool = False) -> dict[str, Any]:
    """Compare evaluated runs on the same splits, each with the first: `compare("a", "b:ridge")`.

    Args:
        runs: runs or their folders, as text with `:MODEL` for another model than the mixture of
            experts; one alone has its models compared.
        across_protocols: of two runs of one data set by different protocols, paired by image.

    Returns:
        Plain values: `contenders` with the figures of each; `comparisons` with the differences of
        each but the first by figure, their intervals and p; with `across_protocols` `across`.

    Raises:
        UsageError: `across_protocols` of other than two runs.
        AgiqaError: not evaluated, no such model, or not the same data set, target and splits.
    """
    if across_protocols and len(runs) != 2:
        raise UsageError(f"--across-protocols takes two runs, found {len(runs)}.")
    names = [str(run.folder) if isinstance(run, Run) else str(run) for run in runs]
    contenders = comparison.read_contenders(names)
    if across_protocols:
        return comparison.across_protocols(contenders[0], contenders[1])
    return comparison.compare(contenders)


def _local_or_url(cache: Path | str) -> Path | str:
    return cache if is_url(str(cache)) else Path(cache)
