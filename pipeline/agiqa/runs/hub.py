"""Published runs on the Hugging Face hub: `hf://user/name[@revision]`, fetched and uploaded.

Only the files of `FILES` and `RESULTS` are fetched, each within its bound, of one commit; they are
as untrusted as any run of others (`files.load_run` judges them), and none of them is code.
"""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from agiqa.core.errors import AgiqaError, UsageError, one_line, printable
from agiqa.core.regular_files import MIB
from agiqa.core.run_folders import CARD, PROVENANCE
from agiqa.runs.files import MODEL, PARAMS, PROMPTS
from agiqa.runs.predictions import PREDICTIONS
from agiqa.runs.records import METRICS

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

# Files of a published run and the most bytes of each; results only where the publisher asked.
FILES = {MODEL: 4096 * MIB, PARAMS: MIB, PROMPTS: MIB, PROVENANCE: 8 * MIB}
RESULTS = {METRICS: 8 * MIB, PREDICTIONS: 1024 * MIB}
START = "hf://"
REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"  # as the hub spells them: user/name
log = logging.getLogger(__name__)


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
