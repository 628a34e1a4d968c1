"""Find, identify and load models: `nano`, a local transformers folder, or a hub id.

The Pillow image processors are asked for by name, because transformers otherwise takes whatever
is installed and the vectors change with the environment.
"""

import hashlib
import importlib.util
import json
import logging
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError, one_line, printable
from agiqa.core.memory import keep_freed_memory
from agiqa.core.params import Semantic
from agiqa.core.processes import device
from agiqa.core.weight_files import read_header, require_weights
from agiqa.data.images import fit_for_square
from agiqa.stage1.extractors.environment import refuse_adapter
from agiqa.stage1.extractors.failures import refused
from agiqa.stage1.extractors.model_memory import (
    files_as_they_are,
    known_sha256,
    recall,
    remember,
)
from agiqa.stage1.extractors.remote_code import (
    allowed_code,
    no_questions,
    read_config,
    require_own_parts,
)
from agiqa.stage1.nano.assemble import ensure_nano

log = logging.getLogger(__name__)

WEIGHTS = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.jinja")
FREE_NUMBERS = 1 << 26  # that weights may lack of what config.json describes: 256 MiB
NOT_IDENTITY = {"nano.json"}  # a record, not an input


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


class MissingModelError(AgiqaError):
    """A model that is neither here nor on the hub, or the hub is out of reach."""


def find_model(name: str, revision: str = "") -> ModelFolder:
    """Resolve `nano` (assembled on first use), a folder, or a hub id (downloaded once).

    Raises:
        MissingModelError: neither, or the hub cannot be reached and has no local copy.
        AgiqaError: the folder holds an adapter (LoRA).
    """
    if name == "nano":
        return ModelFolder(name, ensure_nano())
    folder = Path(name)
    if folder.is_dir():
        return _own(ModelFolder(folder.name, folder))
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if not isinstance(
            try_to_load_from_cache(name, "config.json", revision=revision or None), str
        ):
            about = _about_on_hub(name, revision)
            log.info("Model '%s' is not on this machine and is fetched from the hub%s", name, about)
        path = snapshot_download(name, revision=revision or None, allow_patterns=list(WEIGHTS))
    except HFValidationError as error:
        raise AgiqaError(f"Model '{name}': no such folder, and not a valid hub id.") from error
    except Exception as error:  # network stacks raise many kinds; all mean the same here
        raise MissingModelError(
            f"Model '{name}': no such folder, and the hub has or reaches no such model "
            f"({type(error).__name__}). Put the model into a local folder, such as "
            f"models/{name.rpartition('/')[2]}, and name that folder instead of '{name}'"
        ) from error
    return _own(ModelFolder(name, Path(path)))


def _about_on_hub(name: str, revision: str) -> str:
    """Ask the hub how much there is to fetch, and on which terms; "" where it does not say."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(name, revision=revision or None, files_metadata=True)
    except Exception:  # the fetch itself says why
        return ""
    files = [
        file.size or 0
        for file in info.siblings or ()
        if any(fnmatch(file.rfilename, pattern) for pattern in WEIGHTS)
    ]
    licence = getattr(info.card_data, "license", None) or "not said there"
    return f" ({sum(files) / 1e9:,.2f} GB, licence: {printable(licence)})"


def _own(folder: ModelFolder) -> ModelFolder:
    """Return the folder, if it is a whole model: no adapter, no git-lfs pointers, all its own."""
    no_questions()
    refuse_adapter(folder.path)
    if not (folder.path / "config.json").is_file():
        raise AgiqaError(f"{folder.path}: not a transformers model folder; it has no config.json.")
    require_weights(folder.path)
    require_own_parts(folder.path, folder.name)
    return folder


def load_config(folder: ModelFolder, **trusted: bool) -> Any:
    """Read the model's configuration by transformers.

    Raises:
        AgiqaError: transformers knows no such models, or the configuration is damaged.
    """
    from transformers import AutoConfig, __version__

    kind = read_config(folder.path).get("model_type")
    try:
        return AutoConfig.from_pretrained(folder.path, **trusted)
    except Exception as error:  # validation raises what it likes on fields of a wrong type
        raise AgiqaError(
            f"Model '{folder.name}': transformers {__version__} cannot read its config.json, of "
            f"type {kind!r}: {one_line(error)}. Use another model, or copy the file again."
        ) from error


def load_model(
    auto: Any, folder: ModelFolder, dtype: str, attention: str, settings: Semantic | None = None
) -> Any:
    """Load the folder by `auto.from_pretrained`: eval mode, frozen, on this process's device.

    Args:
        auto: one of transformers' Auto classes.
        folder: the model.
        dtype: of its weights; int8: of its Linear layers', on a CPU.
        attention: transformers' attention kernel.
        settings: where quantisation, a device map and remote code are asked for.

    Raises:
        AgiqaError: the folder holds another kind of model, weights are missing from it, or int8
            cannot run here.
    """
    import transformers

    from agiqa.stage1.extractors.int8 import INT8, arithmetic, require_int8, use_int8

    transformers.utils.logging.disable_progress_bar()
    placement = _placement(folder, settings) if settings else {}
    if dtype == INT8:
        require_int8(folder.name, device(), "device_map" in placement)
    _require_weights_for(auto, folder, placement)
    try:
        model, report = auto.from_pretrained(
            folder.path,
            dtype=arithmetic(dtype),
            attn_implementation=attention,
            output_loading_info=True,
            **placement,
        )
    except pickle.UnpicklingError as error:
        raise AgiqaError(
            f"Model '{folder.name}': its weights are a pickle of more than tensors, which could "
            "run code when loaded: nothing of it was run. Use the model's safetensors."
        ) from error
    except Exception as error:  # of any library that takes part
        raise AgiqaError(
            f"Model '{folder.name}' cannot be loaded as {auto.__name__}: {one_line(error)}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise AgiqaError(
            f"Model '{folder.name}' lacks {len(missing)} weights, such as {missing[:3]}; "
            "they would be random."
        )
    model = model.eval().requires_grad_(False)
    if dtype == INT8:
        use_int8(folder.name, model)
    if device().type == "cpu":
        keep_freed_memory()
    return model if "device_map" in placement else model.to(device())


def _require_weights_for(auto: Any, folder: ModelFolder, placement: Mapping[str, Any]) -> None:
    """Refuse sizes in config.json that the weights do not have, before memory is taken for them.

    Raises:
        AgiqaError: the model that they describe is several times as large as its weights.
    """
    import torch

    files = list(folder.path.glob("*.safetensors"))
    if not files:
        return
    stored = sum(
        math.prod(entry.shape)
        for file in files
        for entry in read_header(file, "copy the model again").values()
    )
    trusted = {key: placement[key] for key in ("trust_remote_code",) if key in placement}
    try:
        with torch.device("meta"):
            model = auto.from_config(load_config(folder, **trusted), **trusted)
    except Exception as error:  # of any library that takes part; from_pretrained says it better
        log.debug("%s: %s", folder.path, error)
        return
    described = sum(parameter.numel() for parameter in model.parameters())
    if described > 8 * stored + FREE_NUMBERS:  # weights of 4 bits lie eight to a number
        raise AgiqaError(
            f"Model '{folder.name}': its config.json describes {described:,} numbers, of which "
            f"its weights hold {stored:,}: copy the model again, or use another one."
        )


def _placement(folder: ModelFolder, settings: Semantic) -> dict[str, Any]:
    """Choose arguments of `from_pretrained` for quantisation, a device map and remote code."""
    from agiqa.stage1.extractors.int8 import arithmetic

    options: dict[str, Any] = {}
    if settings.device_map:
        options["device_map"] = settings.device_map
    if settings.quantization != "none":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise AgiqaError(
                "semantic.quantization needs bitsandbytes: pip install 'agiqa[bitsandbytes]'."
            )
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=settings.quantization == "8bit",
            load_in_4bit=settings.quantization == "4bit",
            bnb_4bit_compute_dtype=arithmetic(settings.dtype),
        )
        options.setdefault("device_map", "auto")
    return options | trust(folder, settings)


def trust(folder: ModelFolder, settings: Semantic) -> dict[str, bool]:
    """Make the argument that lets a model run its own code; empty if transformers has it.

    Raises:
        AgiqaError: the model needs code of its own that is not allowed (remote_code.py).
    """
    return {"trust_remote_code": True} if allowed_code(folder.path, settings) else {}


def load_image_processor(folder: ModelFolder, image_size: int | None = None) -> Any:
    """Load the folder's image processor, Pillow version; `image_size` overrides its pixels.

    Raises:
        AgiqaError: there is none, it cannot be used, or it has no Pillow version.
    """
    from transformers import AutoImageProcessor

    options: dict[str, Any] = {"backend": "pil"}
    if image_size is not None:
        options |= {"size": {"height": image_size, "width": image_size}, "do_center_crop": False}
    try:
        processor = AutoImageProcessor.from_pretrained(folder.path, **options)
    except Exception as error:  # of any field of a wrong type
        raise AgiqaError(
            f"Model '{folder.name}' has no usable image processor (preprocessor_config.json): "
            f"{one_line(error)}"
        ) from error
    require_pillow(folder, processor)
    return processor


def require_pillow(folder: ModelFolder, processor: Any) -> None:
    """Refuse an image processor of another backend, which transformers takes where it finds it.

    Raises:
        AgiqaError: it is not Pillow's.
    """
    if getattr(processor, "backend", "pil") != "pil":
        from transformers import __version__

        raise AgiqaError(
            f"Model '{folder.name}': {type(processor).__name__} has no Pillow version in "
            f"transformers {__version__}, and vectors must not change with the environment."
        )


def preprocess(processor: Any, image: Image.Image) -> np.ndarray:
    """Put one image through the processor: float32 `(3, H, W)`.

    Raises:
        RefusedError: the processor does not take it.
    """
    if getattr(processor, "do_pad", False):
        image = fit_for_square(image)
    try:
        pixels = processor(images=image, return_tensors="np")["pixel_values"]
    except Exception as error:  # of whatever the processor raises
        raise refused(processor, image, error) from error
    return np.asarray(pixels[0], dtype=np.float32)
