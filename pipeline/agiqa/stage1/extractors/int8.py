"""Linear layers in integers of 8 bits, on a CPU: `visual.dtype` and `semantic.dtype` `int8`.

A weight has one scale an output channel, an activation one a token, taken as it comes, as in
LLM.int8() (arXiv:2208.07339) without its columns of outliers. So no token's rounding depends on its
neighbours, as it does where a batch has one scale: torch's dynamic quantisation and ONNX Runtime's.
All else stays float32: norms, attention, embeddings, the language head.
"""

from typing import Any

import torch
from torch import Tensor, nn

from agiqa.core.errors import AgiqaError

INT8 = "int8"
LARGEST = 127  # of a symmetric range
TINY = 1e-30  # the scale of a row of zeros
KERNELS = "AVX512"  # what torch's product of integers is fast on; elsewhere it is a plain loop


class Int8Linear(nn.Module):
    """`nn.Linear` with int8 weights `(N, K)`: float32 `(..., K)` in, float32 `(..., N)` out."""

    weight: Tensor
    scale: Tensor  # (N,)

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(dim=1).clamp_min(TINY) / LARGEST
        self.register_buffer("weight", (weight / scale[:, None]).round_().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply by tokens; sums are exact in int32."""
        tokens = inputs.reshape(-1, inputs.shape[-1])
        largest = torch.maximum(tokens.amax(1, keepdim=True), -tokens.amin(1, keepdim=True))
        scale = largest.clamp_min_(TINY).div_(LARGEST)  # (tokens, 1)
        rounded = torch.div(tokens, scale).round_().to(torch.int8)
        # Private in torch, which has no public one on CPUs; torchao and bitsandbytes stand on it.
        product: Tensor = torch._int_mm(rounded, self.weight.t())
        outputs: Tensor = product.float().mul_(scale).mul_(self.scale)
        if self.bias is not None:
            outputs.add_(self.bias)
        return outputs.reshape(*inputs.shape[:-1], -1)


def arithmetic(dtype: str) -> Any:
    """Give the torch type that a model of this `dtype` setting computes in beside its products."""
    return torch.float32 if dtype == INT8 else getattr(torch, dtype)


def require_int8(name: str, device: torch.device, placed: bool) -> None:
    """Refuse a machine or settings that the layers cannot run with.

    Args:
        name: the model's, as the user gave it.
        device: that the model would run on.
        placed: whether quantization or a device map is asked for as well.

    Raises:
        AgiqaError: a GPU, a CPU without the instructions, or another way to place weights.
    """
    kernels = torch.backends.cpu.get_cpu_capability()
    if device.type != "cpu":
        reason = f"is for CPUs, and this process runs on {device.type}: take bfloat16"
    elif kernels != KERNELS:
        reason = f"expects a CPU with {KERNELS}, found {kernels}: take float32"
    elif placed:
        reason = "goes without quantization and device_map: leave them out, or take float32"
    else:
        return
    raise AgiqaError(f"Model '{name}': dtype int8 {reason}.")


def use_int8(name: str, model: Any) -> None:
    """Put integers in the place of the model's Linear layers, but for the language head.

    Raises:
        AgiqaError: there are none.
    """
    head = model.get_output_embeddings()
    replaced = 0
    for parent in list(model.modules()):
        for child_name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child is not head:  # subclasses' weights are used whole
                setattr(parent, child_name, Int8Linear(child))
                replaced += 1
    if not replaced:
        raise AgiqaError(
            f"Model '{name}' has no Linear layers that dtype int8 could make faster: take float32."
        )
