"""float32 that is float32: without TF32, in which GPUs multiply with 10 bits of mantissa.

PyTorch lets cuDNN's convolutions use it unless told otherwise, and a program or its environment may
have allowed it for matrix products too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute products and convolutions of float32 in float32; afterwards as before."""
    import torch

    cudnn: Any = torch.backends.cudnn
    try:
        before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    except RuntimeError:  # set by PyTorch's newer switches, which the older ones do not read
        switches: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
        stated: list[str] = [switch.fp32_precision for switch in switches]
        try:
            for switch in switches:
                switch.fp32_precision = "ieee"
            yield
        finally:
            for switch, precision in zip(switches, stated, strict=True):
                switch.fp32_precision = precision
        return
    try:
        torch.set_float32_matmul_precision("highest")
        cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]
