"""Published runs: written into a folder, uploaded to the Hugging Face hub, and fetched from there.

What of a run is published is all that scoring needs, and nothing of this machine or its images: a
run without curves, results and pictures, with a card (`views.model_card`). Its weights hold
projected vectors of the images that it was fitted on and the kernels' solutions, out of which their
scores can be reckoned; the card says so.

Of `hf://user/name[@revision]` only the files of `FILES` and `RESULTS` are fetched, each within its
bound, of one commit; they are as untrusted as any run of others (`files.load_run` judges them), and
none of them is code.
"""

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agiqa.core.errors import AgiqaError, UsageError, one_line, printable
from agiqa.core.json_text import write_json
from agiqa.core.params import Params, Visual, dump
from agiqa.core.regular_files import MIB, file_sha256
from agiqa.core.run_folders import CARD, PROVENANCE, require_free_run
from agiqa.data.prompts import prompt_set_text, read_prompt_set
from agiqa.runs.files import (
    MODEL,
    PARAMS,
    PROMPTS,
    Run,
    load_run,
    prompt_set_of,
    require_extractor,
    whole_run,
)
from agiqa.runs.records import METRICS, PREDICTIONS, read_metrics, read_provenance
from agiqa.stage2.presets import RECIPES

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

# Files of a published run and the most bytes of each; results only where the publisher asked.
FILES = {MODEL: 4096 * MIB, PARAMS: MIB, PROMPTS: MIB, PROVENANCE: 8 * MIB}
RESULTS = {METRICS: 8 * MIB, PREDICTIONS: 1024 * MIB}
START = "hf://"
REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"  # as the hub spells them: user/name
log = logging.getLogger(__name__)
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


def is_on_hub(name: object) -> bool:
    """Whether a run is named by an address on the hub."""
    return isinstance(name, str) and name.startswith(START)


def require_repository(name: str) -> str:
    """Give the name of a repository back.

    Raises:
        UsageError: the hub has no such names.
    """
    if not re.fullmatch(REPOSITORY, name):
        raise UsageError(f"Expected user/name on the hub, found '{printable(name)}'.")
    return name


def fetch_run(address: str) -> Path:
    """Fetch a published run into the hub's cache on this machine, or find it there.

    Args:
        address: `hf://user/name`, and perhaps `@` with a branch, tag or commit.

    Returns:
        Its folder.

    Raises:
        AgiqaError: no such address or repository, it holds no run or a file beyond its bound, or
            the hub cannot be reached and no copy is here.
    """
    parts = re.fullmatch(rf"{START}({REPOSITORY})(?:@([\w./-]+))?", address)
    if parts is None:
        raise AgiqaError(f"Expected {START}user/name[@revision], found '{printable(address)}'.")
    repository, revision = parts.groups()
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        info = api.model_info(repository, revision=revision, files_metadata=True)
    except HfHubHTTPError as error:
        raise _not_there(address, error) from error
    except Exception as error:  # network stacks raise many kinds; all mean the same here
        try:
            copy = snapshot_download(
                repository, revision=revision, allow_patterns=list(FILES), local_files_only=True
            )
        except Exception:
            raise _not_there(address, error) from error
        log.warning("%s: the hub cannot be asked; the copy on this machine is used.", address)
        return Path(copy)
    names = _names(address, info)
    try:
        # By the name that was given, or nobody could find it by that name without a network.
        folder = Path(api.snapshot_download(repository, revision=revision, allow_patterns=names))
    except Exception as error:
        raise _not_there(address, error) from error
    if folder.name != info.sha:
        raise AgiqaError(f"{address} was changed while it was fetched: try again.")
    return folder


def _names(address: str, info: "ModelInfo") -> list[str]:
    """The files of a run that a repository has.

    Raises:
        AgiqaError: one is missing, or larger than it may be.
    """
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if missing := [name for name in FILES if name not in sizes]:
        raise AgiqaError(
            f"{address}: no published run: expected {', '.join(missing)} there. "
            "`agiqa publish RUN --push user/name` puts one on the hub."
        )
    bounds = {name: most for name, most in (FILES | RESULTS).items() if name in sizes}
    for name, most in bounds.items():
        if sizes[name] > most:
            raise AgiqaError(
                f"{address}: {name} has {sizes[name]:,} bytes, at most {most:,} are fetched."
            )
    return list(bounds)


def _not_there(address: str, error: Exception) -> AgiqaError:
    return AgiqaError(
        f"{address} cannot be fetched ({_reason(error)}). See that it is there, that the "
        "network is, and for a private one `hf auth login`; or name a folder that holds it."
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error).partition('. ')[0]}"


def push_run(folder: Path, repository: str, private: bool) -> str:
    """Upload the files of a published folder; the repository is made where there is none.

    Returns:
        The address of the commit.

    Raises:
        AgiqaError: the hub cannot be reached, or does not let this user write there.
    """
    from huggingface_hub import HfApi

    names = [name for name in (*FILES, *RESULTS, CARD) if (folder / name).is_file()]
    try:
        api = HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=names,
            commit_message="A run of agiqa",
        )
    except Exception as error:  # network stacks raise many kinds; all mean the same here
        raise AgiqaError(
            f"{folder} is whole, and was not uploaded to {START}{repository} ({_reason(error)}): "
            "see that the network is there and `hf auth login` was done, then give the same "
            "command with --replace."
        ) from error
    return f"{START}{repository}@{done.oid}"
