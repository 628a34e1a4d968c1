"""A folder's mPLUG-Owl2 on its device, by transformers: all its weights fit, or none is used.

Devices: the GPU of this process (agiqa.core.processes), else the CPU. Where one process sees
several GPUs and the model does not fit the first, accelerate spreads its blocks over them in
order; activations then travel between GPUs, which work in turn. Nothing is offloaded to the CPU.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import infer_auto_device_map
from huggingface_hub.errors import StrictDataclassError
from transformers.utils.logging import disable_progress_bar

from agiqa.core.errors import AgiqaError, one_line, some
from agiqa.core.processes import device, this_process
from agiqa.core.weight_files import load_torch_file, read_header
from agiqa.stage1.extractors.remote_code import json_mapping
from agiqa.stage1.mplug_owl2.network import KERNELS, MplugOwl2Config, MplugOwl2Model

Devices = Mapping[str, str | int | torch.device]
SHOWN = 20  # names of each kind in an error
SHARE = 0.9  # of a GPU's free memory that weights may take; the rest is for activations


def load_config(folder: Path) -> MplugOwl2Config:
    """Read the folder's configuration.

    Raises:
        AgiqaError: it does not describe an mPLUG-Owl2.
    """
    try:
        config: MplugOwl2Config = MplugOwl2Config.from_pretrained(folder)
        if config.vision.hidden_size != config.abstractor.encoder_hidden_size:
            raise ValueError("the abstractor expects another width than the vision tower's")
    except (TypeError, ValueError, OSError, AttributeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AgiqaError(
            f"{folder / 'config.json'}: no configuration of mPLUG-Owl2 ({reason}); copy it again."
        ) from error
    return config


def load_model(
    folder: Path, dtype: str, attention: str, network: type[MplugOwl2Model] = MplugOwl2Model
) -> MplugOwl2Model:
    """Load the network in eval mode, frozen, its weights cast to `dtype`.

    Raises:
        AgiqaError: weights that do not fit (all are listed at once) or cannot be read, an unknown
            attention kernel, GPUs that cannot hold the weights.
    """
    if attention not in KERNELS:
        raise AgiqaError(
            f"mPLUG-Owl2 runs with semantic.attention={' or '.join(KERNELS)}; found '{attention}'."
        )
    kind = getattr(torch, dtype)
    if not kind.is_floating_point:
        raise AgiqaError(
            f"mPLUG-Owl2 runs with semantic.dtype=float32, bfloat16 or float16; found '{dtype}'."
        )
    config = load_config(folder)
    empty = build_empty(config, attention, network)
    devices = plan_devices(empty, kind, _free_memory())
    _require_fit(empty, folder)
    options = {"attn_implementation": attention, "device_map": dict(devices)}
    disable_progress_bar()
    try:
        model: MplugOwl2Model
        model, report = network.from_pretrained(
            folder, config=config, dtype=kind, output_loading_info=True, **options
        )
    except torch.OutOfMemoryError as error:
        raise AgiqaError(_too_large(empty, kind)) from error
    except Exception as error:  # of any library that takes part
        raise AgiqaError(_unreadable(folder, error)) from error
    if missing := sorted(report["missing_keys"]):
        raise AgiqaError(f"{folder}: lacks {some(missing, SHOWN)}, which would be random.")
    model.eval().requires_grad_(False)
    return model


def _require_fit(model: MplugOwl2Model, folder: Path) -> None:
    """Refuse weights that are damaged or not the network's, before memory is taken for any.

    Raises:
        AgiqaError: names the file, or lists all that is missing, unexpected or misshapen.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _weight_files(folder):
        shapes |= _shapes(path)
    if not shapes:
        raise AgiqaError(
            f"{folder}: no weights; expected model.safetensors or pytorch_model.bin, or their "
            "shards."
        )
    ignored = re.compile("|".join(model._keys_to_ignore_on_load_unexpected))
    expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    unexpected = [name for name in shapes.keys() - expected.keys() if not ignored.fullmatch(name)]
    misshapen = [
        f"{name} {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    kinds = {"missing": expected.keys() - shapes.keys(), "unexpected": unexpected}
    lists = [
        f"{len(names)} {kind} ({some(sorted(names), SHOWN)})"
        for kind, names in (*kinds.items(), ("misshapen", misshapen))
        if names
    ]
    if lists:
        raise AgiqaError(
            f"{folder}: the weights do not fit its config.json and {type(model).__name__}: "
            f"{'; '.join(lists)}. Take the whole checkpoint of one model."
        )


def _weight_files(folder: Path) -> list[Path]:
    """List the files, of those that are there, that transformers takes weights from: no others."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        if (index := folder / f"{name}.index.json").is_file():
            by_weight = json_mapping(index).get("weight_map")
            names = by_weight.values() if isinstance(by_weight, Mapping) else ()
            paths = [folder / shard for shard in sorted(set(map(str, names)))]
            return [path for path in paths if path.is_file()]
    return []


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Look up the shapes of a file's weights by name, after a leading `model.`."""
    if path.suffix == ".safetensors":
        header = read_header(path, "copy it again")
        shapes = {name: entry.shape for name, entry in header.items()}
    else:
        try:
            tensors = load_torch_file(path, mapped=True).items()
            shapes = {name: tuple(tensor.shape) for name, tensor in tensors}
        except Exception as error:  # of whatever torch raises
            raise AgiqaError(_unreadable(path, error)) from error
    return {name.removeprefix("model."): shape for name, shape in shapes.items()}


def _unreadable(path: Path, error: Exception) -> str:
    reason = one_line(error)[:160]
    return f"{path}: damaged, truncated or no weights ({reason}); copy it again."


def build_empty(
    config: MplugOwl2Config, attention: str, network: type[MplugOwl2Model] = MplugOwl2Model
) -> MplugOwl2Model:
    """Build the network on the meta device: shapes without memory."""
    config._attn_implementation = attention
    with torch.device("meta"):
        model = network(config)
    model.eval().requires_grad_(False)
    return model


def plan_devices(
    model: MplugOwl2Model, dtype: torch.dtype, free: Mapping[int, int] | None
) -> Devices:
    """Plan which device holds which module, for a model on the meta device.

    Args:
        model: its blocks are never split.
        dtype: that its weights will have.
        free: bytes for each GPU that may be used; None: all on this process's device.

    Raises:
        AgiqaError: the GPUs together cannot hold the weights.
    """
    if free is None:
        return {"": device()}
    planned: Devices = infer_auto_device_map(
        model,
        max_memory=dict(free),
        no_split_module_classes=list(model._no_split_modules),
        dtype=dtype,
    )
    if not set(planned.values()) <= set(free):
        raise AgiqaError(_too_large(model, dtype))
    return planned


def _free_memory() -> dict[int, int] | None:
    """Count bytes for weights on each GPU that this process may use; None on a CPU."""
    own = device()
    if own.type != "cuda":
        return None
    is_one_gpu = this_process().world > 1 or torch.cuda.device_count() == 1
    gpus = [own.index or 0] if is_one_gpu else range(torch.cuda.device_count())
    return {gpu: int(torch.cuda.mem_get_info(gpu)[0] * SHARE) for gpu in gpus}


def _too_large(model: MplugOwl2Model, dtype: torch.dtype) -> str:
    size = sum(weight.numel() for weight in model.parameters()) * dtype.itemsize / 1e9
    kind = str(dtype).removeprefix("torch.")
    return (
        f"The weights need {size:.1f} GB of GPU memory in {kind}, more than is free: take "
        "semantic.dtype=bfloat16 or float16, close what else uses the GPU, or hide it "
        "(CUDA_VISIBLE_DEVICES=) to run on the CPU."
    )
