"""Where the backbone's weights may come from: timm, transformers, or a file in timm's naming.

timm                          timm's download of the weights that the authors' version loads
timm/NAME                     another of timm's ViTs
FILE.safetensors, .bin, .pth  a state dict in timm's naming
FOLDER, or a hub id           a ViT of transformers, with its config.json
"""

import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from agiqa.core.errors import AgiqaError
from agiqa.core.trees import read_json
from agiqa.core.weight_files import load_torch_file
from agiqa.stage2.paper.network.regressor import PaperRegressor
from agiqa.stage2.paper.network.weights import from_transformers, load_timm_state

TIMM = "timm"
TIMM_MODEL = "vit_base_patch8_224.augreg_in21k_ft_in1k"
PATTERNS = ("*.safetensors", "pytorch_model*.bin")  # a folder's weights: the first that is there
WITH_CONFIG = (*PATTERNS, "config.json")


def load_vit(regressor: PaperRegressor, source: str | Path | Mapping[str, Tensor]) -> None:
    """Start the backbone from `source`: a state dict in timm's naming, or one of those above.

    Raises:
        AgiqaError: no such source, damaged files, another kind of model or other sizes, timm not
            installed, no network. The regressor is unchanged then.
    """
    if isinstance(source, Mapping):
        load_timm_state(regressor, source, "the given weights")
    elif str(source) == TIMM or str(source).startswith(f"{TIMM}/"):
        name = str(source).partition("/")[2] or TIMM_MODEL
        load_timm_state(regressor, _downloaded_by_timm(name), f"timm's {name}")
    elif Path(source).is_file():
        load_timm_state(regressor, _read(Path(source)), str(source))
    else:
        folder = Path(source) if Path(source).is_dir() else _downloaded_from_hub(str(source))
        _require_vit(folder, regressor.config.heads, str(source))
        load_timm_state(regressor, from_transformers(_read_folder(folder)), str(source))


def _read_folder(folder: Path) -> dict[str, Tensor]:
    for pattern in PATTERNS:
        tensors = [_read(path) for path in sorted(folder.glob(pattern))]
        if tensors:
            return {name: tensor for shard in tensors for name, tensor in shard.items()}
    raise AgiqaError(f"{folder}: no weights; expected {' or '.join(PATTERNS)} beside config.json.")


def _read(file: Path) -> dict[str, Tensor]:
    """Weights by name; nothing in the file is run."""
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        tree = load_torch_file(file)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError) as error:
        raise AgiqaError(
            f"{file}: damaged or truncated, or no weights ({type(error).__name__}): copy it again."
        ) from error
    except pickle.UnpicklingError as error:
        raise AgiqaError(
            f"{file}: expected tensors by name, found a pickle that is damaged or holds other "
            "objects, which could run code when loaded: save its state dict alone."
        ) from error
    if not isinstance(tree, dict) or not all(map(torch.is_tensor, tree.values())):
        raise AgiqaError(f"{file}: expected tensors by name; save the model's state dict alone.")
    return tree


def _require_vit(folder: Path, heads: int, where: str) -> None:
    """What the shapes of the weights do not tell."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise AgiqaError(
            f"{where}: expected a transformers folder with config.json ({type(error).__name__})."
        ) from error
    expected = {"model_type": "vit", "num_attention_heads": heads, "hidden_act": "gelu"}
    for key, value in expected.items():
        if config.get(key) != value:
            raise AgiqaError(
                f"{where}: expected {key} {value!r} in its config.json, found {config.get(key)!r}: "
                "take another ViT, or change paper.network to its sizes."
            )


def _downloaded_from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(WITH_CONFIG)))
    except Exception as error:  # network stacks raise many kinds; all mean the same here
        raise AgiqaError(
            f"Backbone '{name}': no such file or folder, and the hub has or reaches no such model "
            f"({type(error).__name__}). Put the weights into a local file or folder and name it."
        ) from error


def _downloaded_by_timm(name: str) -> dict[str, Tensor]:
    try:
        timm: Any = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # the latter where torchvision is another torch's
        raise AgiqaError(
            "Backbone 'timm' needs the timm extra: pip install 'agiqa[timm]', or give a local file "
            f"instead, model.safetensors of huggingface.co/timm/{name} ({type(error).__name__})."
        ) from error
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # unknown names, no pretrained weights, and network stacks
        reason = " ".join(str(error).split())[:200]
        raise AgiqaError(
            f"timm has or reaches no weights of '{name}' ({type(error).__name__}: {reason}). "
            "Give a local file of them instead."
        ) from error
    tensors: dict[str, Tensor] = model.state_dict()
    return tensors
