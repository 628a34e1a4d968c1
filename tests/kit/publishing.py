"""The tiny run as one that may be published: its model is on the hub, here in the hub's cache."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml

from kit.hub_server import COMMIT
from kit.tiny_workspace import RUN

MODEL = "tester/tiny"


def put_in_hub_cache(cache: Path, repository: str, folder: Path) -> None:
    """Lay a folder into the hub's cache as if it had been fetched: branch main, commit COMMIT."""
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text(COMMIT)
    shutil.copytree(folder, place / "snapshots" / COMMIT)


def make_publishable(workspace: Path, folder: Path, lmm: Path) -> Path:
    """Copy the run of the tiny workspace, with MODEL for its model, into `folder`/run."""
    run = Path(shutil.copytree(workspace / RUN, folder / "run"))
    settings = yaml.safe_load((run / "params.yaml").read_text())
    settings["semantic"]["model"] = settings["visual"]["model"] = MODEL
    (run / "params.yaml").write_text(yaml.safe_dump(settings))
    put_in_hub_cache(folder / "hub", MODEL, lmm)
    return run


def use_hub(patch: pytest.MonkeyPatch, cache: Path, endpoint: str = "") -> None:
    """Let huggingface_hub ask `endpoint`, or nobody, and keep what it fetches in `cache`."""
    address = endpoint or "http://127.0.0.1:9"
    for name, value in {
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": not endpoint,
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
    }.items():
        patch.setattr(huggingface_hub.constants, name, value)
    patch.setenv("HF_TOKEN", "hf_of_nobody")
