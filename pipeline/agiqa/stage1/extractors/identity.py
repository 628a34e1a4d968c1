"""What a model's vectors follow from: the bytes of its files, and libraries that work unasked.

transformers takes up some packages wherever they are installed: kernels for state-space and linear
attention (causal-conv1d, fla, mamba-ssm), quantisers, tokenizers of other makers. A vector made
with them is another one, so their versions stand in its fingerprint, under `libraries`, where the
model can take them up; a model that cannot has the same fingerprint with and without them. What
`peft` would do is refused (`refuse_adapter`).

What was found out of models once, digests of files, what prompts can share, how many images fit,
is kept beside them in `known.json`, which may be deleted at any time. Nothing in it goes stale: a
finding is kept by the digest of all that it follows from. Of a file that is its path, size and
times, as in git's index (`data/datasets/origin.py`).
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError
from agiqa.core.json_text import json_text
from agiqa.core.regular_files import file_sha256
from agiqa.core.trees import read_json
from agiqa.core.whole_files import write_file
from agiqa.data.datasets.origin import STEP, state
from agiqa.stage1.nano.assemble import models_root
from agiqa.store import digest

log = logging.getLogger(__name__)

WEIGHTS = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.jinja")
NOT_IDENTITY = {"nano.json"}  # a record, not an input
LEAST = 1 << 20  # bytes of a file whose digest is worth keeping
MOST = 2_000  # findings; the oldest go
AUTO = {"cpu": 16, "cuda": 64}  # images in a batch where semantic.batch_size is 0
LIBRARIES = ("torch", "transformers", "pillow")  # whose versions may change any vector
# Distributions by the name by which transformers' modelling code imports them where they are there.
TAKEN_UP = {
    "causal_conv1d": "causal-conv1d",
    "detectron2": "detectron2",
    "fla": "flash-linear-attention",
    "flash_attn": "flash-attn",
    "kernels": "kernels",
    "mamba_ssm": "mamba-ssm",
    "mambapy": "mambapy",
    "natten": "natten",
    "timm": "timm",
    "torchvision": "torchvision",
    "xlstm": "xlstm",
}
FLASH = ("flash-attn", "flash-attn-3", "flash-attn-4", "kernels")  # whichever of them serves
QUANTISERS = (
    *("aqlm", "auto-round", "autoawq", "bitsandbytes", "compressed-tensors", "eetq"),
    *("fbgemm-gpu", "flute-kernel", "fp-quant", "fouroversix", "gguf", "gptqmodel", "hqq"),
    *("kernels", "optimum", "optimum-quanto", "qutlass", "quark", "sinq", "spqr-quant"),
    *("torchao", "triton", "vptq"),
)
TOKENIZERS = ("mistral-common", "sentencepiece", "tiktoken")
ADAPTER = "adapter_config.json"  # peft's; transformers applies what lies beside it, with peft

Cause = Mapping[str, object]


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk: the name the user gave, and where it stands."""

    name: str
    path: Path

    def identity(self, code: bool = False) -> dict[str, str]:
        """Digest over the bytes of every weight, configuration and tokenizer file.

        With `code` over Python files too: those of a model that may run its own.
        """
        files = {p for pattern in WEIGHTS for p in self.path.glob(pattern)}
        files |= set(self.path.rglob("*.py")) if code else set()
        listing = {
            p.relative_to(self.path).as_posix(): known_sha256(p)
            for p in sorted(files)
            if p.name not in NOT_IDENTITY
        }
        text = json.dumps(listing, sort_keys=True)
        return {"sha256": hashlib.sha256(text.encode()).hexdigest()}

    def part_identity(self, part: str) -> dict[str, str]:
        """Digest over the tensors whose name holds `part`, so that other parts may change.

        Where no safetensors file has such tensors, that of the whole folder.
        """
        files = sorted(self.path.glob("*.safetensors"))
        cause = files_as_they_are(files, part=part) if files else None
        sha256 = recall(cause)
        if not isinstance(sha256, str):
            sha256 = _part_sha256(files, part)
            if sha256 and cause == files_as_they_are(files, part=part):
                remember(cause, sha256)
        return {"sha256": sha256} if sha256 else self.identity()


def _part_sha256(files: Sequence[Path], part: str) -> str:
    """Digest the tensors of safetensors files whose name holds `part`; "" where none does."""
    import torch
    from safetensors import SafetensorError, safe_open

    sha = hashlib.sha256()
    has_part = False
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys() if part in name}  # noqa: SIM118
        except SafetensorError as error:
            raise AgiqaError(f"{path}: damaged weights ({error}); copy them again.") from error
        for name, tensor in sorted(tensors.items()):
            has_part = True
            dtype = str(tensor.dtype).removeprefix("torch.")
            sha.update(f"{name} {dtype} {tuple(tensor.shape)}".encode())
            sha.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest() if has_part else ""


def memory_file() -> Path:
    """Name the file that keeps what is known of models."""
    return models_root() / "known.json"


def recall(cause: Cause | None) -> object:
    """Give what is known to follow from `cause`; None: nothing."""
    return None if cause is None else _read().get(digest(cause))


def remember(cause: Cause | None, finding: object) -> None:
    """Keep what follows from `cause`; where the disk refuses, it will be found out again."""
    if cause is None:
        return
    file, known = memory_file(), _read() | {digest(cause): finding}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, json_text(dict(list(known.items())[-MOST:])).encode())
    except OSError as error:
        log.debug("%s: %s", file, error)


def files_as_they_are(paths: Sequence[Path], **more: object) -> Cause | None:
    """Make the cause of what follows from files' bytes; None where they have changed just now."""
    states = {name: state(name) for name in (str(path.resolve()) for path in paths)}
    known = [times for times in states.values() if times is not None]
    is_settled = all(max(times[1:]) < time.time_ns() - STEP for times in known)
    return {"files": states, **more} if is_settled and len(known) == len(states) else None


def known_sha256(path: Path) -> str:
    """Give the sha256 of a file's bytes, which are read where its size or times are new.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe or a device.
    """
    cause = files_as_they_are([path]) if path.stat().st_size >= LEAST else None
    if isinstance(known := recall(cause), str):
        return known
    sha256 = file_sha256(path)
    if cause == files_as_they_are([path]):
        remember(cause, sha256)
    return sha256


def code_sha256(*modules: str) -> str:
    """Digest source of ours that a finding depends on, by paths below the package."""
    package = Path(__file__).parents[2]
    return hashlib.sha256(b"".join((package / name).read_bytes() for name in modules)).hexdigest()


def device_name() -> str:
    """Name this process's device, such as `cpu` or `NVIDIA H200`."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def batch_size(asked: int) -> int:
    """Choose the images in a batch: `asked`, or by the kind of device where that is 0."""
    if asked:
        return asked
    import torch

    return AUTO["cuda" if torch.cuda.is_available() else "cpu"]


def fitting_size(size: int, weight: int, cause: Cause) -> int:
    """Halve `size` images of `weight` numbers as long as that is known not to fit.

    Numbers of the images' arrays, for images differ in their tokens: a large one says nothing of
    how many small ones fit. `cause`: model, type and device.
    """
    limit = _too_many(cause)
    while size > 1 and size * weight >= limit:
        size //= 2
    return size


def note_too_many(size: int, weight: int, cause: Cause) -> None:
    """Remember that `size` images of `weight` numbers do not fit."""
    remember(cause, min(size * weight, _too_many(cause)))


def _too_many(cause: Cause) -> float:
    known = recall(cause)
    return max(1, known) if isinstance(known, int) else math.inf


def _read() -> dict[str, object]:
    try:
        known = read_json(memory_file())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def libraries(
    config: Any,
    attention: str = "",
    *,
    quantised: bool = False,
    tokenizer: Any = None,
    code: Path | None = None,
) -> dict[str, str]:
    """Look up versions of whatever can change the vectors of a model.

    Args:
        config: the model's, as transformers reads it; None: of a network of our own.
        attention: the attention kernel asked for.
        quantised: whether the settings ask for weights in fewer bits.
        tokenizer: the model's, where texts are made of tokens.
        code: the model's folder, where Python of its own is run.

    Raises:
        AgiqaError: the attention kernel would be code from the hub.
    """
    if "/" in attention:
        raise AgiqaError(
            f"attention is a kernel of transformers, such as sdpa or eager; found {attention!r}, "
            "code from the hub, which is not run."
        )
    wanted = set()
    for part in _configs(config):
        wanted |= _taken_up(type(part).__module__)
    if attention.startswith("flash"):
        wanted |= set(FLASH)
    if quantised or getattr(config, "quantization_config", None):
        wanted |= set(QUANTISERS)
    # The ordinary ones are of the library `tokenizers`, which transformers requires.
    if tokenizer is not None and not getattr(tokenizer, "is_fast", False):
        wanted |= set(TOKENIZERS)
    if code is not None:
        wanted |= _imported(code)
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    for name in wanted:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def refuse_adapter(folder: Path) -> None:
    """Refuse a model's folder with an adapter, which only an installed peft would apply.

    Raises:
        AgiqaError: says how to make a full model of it.
    """
    path = folder / ADAPTER
    if not path.is_file():
        return
    try:
        base = str(read_json(path)["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        base = "its base model"
    merge = (
        f"PeftModel.from_pretrained(<{base[:80]!r} as a model>, {str(folder)!r})"
        ".merge_and_unload().save_pretrained(<a new folder>)"
    )
    if (folder / "config.json").is_file():
        raise AgiqaError(
            f"{folder}: an adapter ({ADAPTER}) lies beside the full model, and would be applied "
            f"where peft is installed and nowhere else: merge it by peft, {merge}, and name the "
            "new folder; or take the adapter's files out."
        )
    raise AgiqaError(
        f"{folder}: expected a full model, found an adapter alone ({ADAPTER}): merge it into "
        f"{base[:80]!r} by peft, {merge}, put that model's processor files beside, and name the "
        "new folder."
    )


def _configs(config: Any) -> Iterator[Any]:
    """Yield the configuration and those of its parts."""
    from transformers import PreTrainedConfig

    if isinstance(config, PreTrainedConfig):
        yield config
        for value in vars(config).values():
            yield from _configs(value)


@cache
def _taken_up(configurations: str) -> set[str]:
    """Find what transformers' code for the configurations of a module takes up if installed."""
    name = configurations.replace(".configuration_", ".modeling_")
    try:
        module = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return set()
    if not name.startswith("transformers.") or module is None or module.origin is None:
        return set()
    text = Path(module.origin).read_text(encoding="utf-8")
    return {
        distribution
        for package, distribution in TAKEN_UP.items()
        if re.search(
            rf'"{package}"|\bis_{package}(_\d)?_available\b|^\s*(import|from) {package}\b',
            text,
            re.MULTILINE,
        )
    }


def _imported(code: Path) -> set[str]:
    """Find distributions of what the Python files of a model's folder import."""
    by_package = importlib.metadata.packages_distributions()
    wanted: set[str] = set()
    for path in sorted(code.rglob("*.py")):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # it cannot be run either
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                package = name.partition(".")[0]
                if package not in sys.stdlib_module_names:
                    wanted |= set(by_package.get(package, ()))
    return wanted
