"""What of a run is published: all that scoring needs, and nothing of this machine or its images.

A published folder is a run without curves, results and pictures, with a card (`views.model_card`).
Its weights hold projected vectors of the images that it was fitted on and the kernels' solutions,
out of which their scores can be reckoned; the card says so.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.json_text import write_json
from agiqa.core.params import Params, Visual, dump
from agiqa.core.regular_files import file_sha256
from agiqa.core.run_folders import CARD, PROVENANCE, require_free_run
from agiqa.data.prompts import prompt_set_text, read_prompt_set
from agiqa.runs.files import MODEL, PARAMS, PROMPTS, Run, load_run, whole_run
from agiqa.runs.hub import RESULTS
from agiqa.runs.records import read_metrics, read_provenance
from agiqa.runs.score import prompt_set_of, require_extractor
from agiqa.stage2.presets import RECIPES

ELSEWHERE_TOO = re.compile(r"nano|[A-Za-z0-9][\w.-]*(/[\w.-]+)?")  # names of models on the hub


def published_settings(run: Run) -> Params:
    """The settings that scoring needs; where the data lay and how prompts were called is left out.

    Raises:
        AgiqaError: a model is a folder of this machine, which others do not have.
    """
    semantic, fit = run.params.semantic, run.params.fit
    visual = Visual() if fit.preset in RECIPES else run.params.visual  # the paper's sees pixels
    models = {"semantic.model": semantic.model, "visual.model": visual.model}
    for setting, model in models.items():
        if not ELSEWHERE_TOO.fullmatch(model) or Path(model).is_dir():
            raise AgiqaError(
                f"{printable(run.folder)}: {setting} is '{printable(model)}', a folder of this "
                "machine, which others do not have: put the model on the hub, and fit with its id "
                "there (vectors are known by the model's bytes and are not computed again)."
            )
    prompts = read_prompt_set(prompt_set_of(run)).name
    return Params(
        semantic=replace(semantic, prompts=re.sub(r"[^\w.-]", "-", prompts)),
        visual=visual,
        fit=fit,
        paper=replace(run.params.paper, backbone="none"),  # its weights are the run's own
    )


def published_provenance(run: Run, name: str) -> dict[str, Any]:
    """The provenance without names of files here, this repository's commit, and times."""
    kept = _without_files(run.provenance)
    kept["others"] = [_without_files(about) for about in kept["others"]]
    if "imported" in kept:
        kept["imported"] = {"sha256": kept["imported"].get("sha256", "")}
    return kept | {"git_revision": None, "fit_seconds": 0.0, "published": name}


def _without_files(about: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a data set, but for a source that is no page of others': a file's name."""
    is_page = "://" in str(about.get("source", ""))
    return {name: value for name, value in about.items() if name != "source" or is_page}


def load_publishable(folder: Path) -> Run:
    """Load a run that may be published.

    Raises:
        AgiqaError: it is published already, not evaluated, or cannot score new images.
    """
    run = load_run(folder)
    if "published" in run.provenance:
        raise AgiqaError(f"{printable(folder)}: is published already: use the folder as it is.")
    read_metrics(folder)
    require_extractor(run)
    return run


def publish_run(
    run: Run, folder: Path, card: str, *, results: bool = False, replace: bool = False
) -> list[str]:
    """Write what is published of a run into a folder of its own.

    Args:
        run: as `load_publishable` gives it.
        folder: to be made.
        card: its README.md.
        results: also the figures and each tested image's name, rating and score.
        replace: overwrite a run that stands there.

    Returns:
        The names of the files.

    Raises:
        AgiqaError: it rests on models of this machine alone, or the folder holds other things, or
            a run that is no copy of another, which is not replaced either.
    """
    require_free_run(folder, replace)
    stands = (folder / PROVENANCE).is_file()
    own = folder.resolve() == run.folder.resolve()
    if own or (stands and "published" not in read_provenance(folder, partial=True)):
        raise AgiqaError(
            f"{printable(folder)}: a run that was fitted stands there, which would be lost: "
            "publish into another folder."
        )
    settings, prompts = published_settings(run), prompt_set_text(prompt_set_of(run))
    with whole_run(folder) as staged:
        shutil.copyfile(run.folder / MODEL, staged / MODEL)
        (staged / PARAMS).write_text(dump(settings, permissions=False), encoding="utf-8")
        (staged / PROMPTS).write_text(prompts, encoding="utf-8")
        for name in RESULTS if results else ():
            shutil.copyfile(run.folder / name, staged / name)
        digests = {path.name: file_sha256(path) for path in sorted(staged.iterdir())}
        provenance = published_provenance(run, folder.name) | {"sha256": digests}
        write_json(staged / PROVENANCE, provenance)
        (staged / CARD).write_text(card, encoding="utf-8")
        return sorted(path.name for path in staged.iterdir())
