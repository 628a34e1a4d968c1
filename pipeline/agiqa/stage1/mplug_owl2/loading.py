"""A folder's mPLUG-Owl2 on its device: built without memory, then filled shard by shard.

Devices: the GPU of this process (agiqa.core.processes), else the CPU. Where one process sees
several GPUs and the model does not fit the first, accelerate spreads its blocks over them in
order; activations then travel between GPUs, which work in turn. Nothing is offloaded to the CPU.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import dispatch_model, infer_auto_device_map
from huggingface_hub.errors import StrictDataclassError
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from agiqa.core.errors import AgiqaError
from agiqa.core.processes import device, this_process
from agiqa.stage1.mplug_owl2.blocks import KERNELS
from agiqa.stage1.mplug_owl2.checkpoint import load_weights
from agiqa.stage1.mplug_owl2.configuration import MplugOwl2Config
from agiqa.stage1.mplug_owl2.modeling import MplugOwl2Model

Devices = Mapping[str, str | int | torch.device]
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
        AgiqaError: another architecture, weights that do not fit or cannot be read, an unknown
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
    model = build_empty(load_config(folder), attention, network)
    devices = plan_devices(model, kind, _free_memory())
    try:
        load_weights(model, folder, kind, devices, model._keys_to_ignore_on_load_unexpected)
    except torch.OutOfMemoryError as error:
        raise AgiqaError(_too_large(model, kind)) from error
    return place(model, devices)


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


def place(model: MplugOwl2Model, devices: Devices) -> MplugOwl2Model:
    """Complete a filled model with its buffers and, across devices, accelerate's hooks."""
    model.rotary_emb = LlamaRotaryEmbedding(model.config)
    if len(set(devices.values())) > 1:
        dispatched: MplugOwl2Model = dispatch_model(model, dict(devices))
        return dispatched
    model.rotary_emb.to(next(iter(devices.values())))
    return model


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
