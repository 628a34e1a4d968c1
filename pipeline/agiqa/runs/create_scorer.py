"""Scorers by name: the one that comes with agiqa, a published model, a run from wherever it is."""

from collections.abc import Sequence
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.runs.files import Run, load_run
from agiqa.runs.image_scorer import ImageScorer, Picture
from agiqa.runs.lmm_scorer import LmmScorer, is_scorer, read_scorer
from agiqa.runs.publish import fetch_run, is_on_hub
from agiqa.runs.score import Score, Scorer, default_run
from agiqa.stage1.one_machine import Engine


def create_scorer(
    what: Run | Path | str | None = None,
    ledger: Path | None = None,
    remote_code: str = "",
    engine: Engine | None = None,
) -> ImageScorer:
    """Make a scorer ready: `create_scorer()(["image.png"])`; models load on first use.

    Args:
        what: nothing, for the scorer that comes with agiqa; the name of a published one
            ("q-align") or its YAML file; a run or its folder; a run on the hub
            (`hf://user/name[@revision]`).
        ledger: where vectors of files are kept; by default `agiqa.store.default_root()`.
        remote_code: `MODEL@DIGEST`, which lets the model run just that Python of its own; the
            refusal of a model that needs it says what to give.
        engine: what computes vectors of files; by default this process.

    Raises:
        AgiqaError: no such scorer (the published ones are listed), its model is not there, or this
            environment makes other vectors than a run was trained on.
    """
    if what == "":
        raise AgiqaError("Expected a scorer's name or a run's folder, found an empty text.")
    if isinstance(what, Run):
        what = what.folder
    if what is not None and not isinstance(what, Path | str):
        raise AgiqaError(f"Expected a scorer's name or a run's folder, found {what!r}.")
    if is_on_hub(what):
        what = fetch_run(str(what))
    if what and _is_scorer_file(what):
        return LmmScorer(read_scorer(str(what)), ledger, remote_code, engine)
    return Scorer(load_run(what or default_run(), remote_code), ledger, engine)


def _is_scorer_file(what: Path | str) -> bool:
    """Whether it is a YAML file, or a word: a known scorer's name, or the name of nothing here."""
    if isinstance(what, Path) or Path(what).name != what:
        return Path(what).suffix in (".yaml", ".yml")
    return is_scorer(what) or not Path(what).exists()


def score(
    images: Picture | Sequence[Picture],
    run: Run | Path | str | None = None,
    *,
    image_prompts: str | Sequence[str] | None = None,
    skip_bad: bool = False,
    remote_code: str = "",
) -> list[Score]:
    """Score new images, in the order given: `score("a.png", run)[0].score`.

    Args:
        images: an image or several, as a scorer takes them: files, folders, or images in memory.
        run: a run, its folder or another scorer, as `create_scorer` takes it, which keeps its
            models loaded between calls.
        image_prompts: the text that each image was generated from, for runs that ask for it.
        skip_bad: leave out files that cannot be scored, with a warning each.
        remote_code: `MODEL@DIGEST`, as `create_scorer` takes it.

    Raises:
        AgiqaError: no run, another environment than it was fitted in, an image that cannot be
            scored.
    """
    several = [images] if isinstance(images, Picture) else images
    prompts = [image_prompts] if isinstance(image_prompts, str) else image_prompts
    return create_scorer(run, remote_code=remote_code)(several, prompts, skip_bad)
