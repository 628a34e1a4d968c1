"""What benchmarks measure with: a clock that waits for the device, and the device's own rate."""

import time
from collections.abc import Callable

import torch


def seconds(work: Callable[[], object]) -> float:
    """That `work` takes, the device's queue emptied before and after."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s that the device reaches on a large product; the best of ten."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    torch.mm(left, right)
    return 2 * size**3 / min(seconds(lambda: torch.mm(left, right)) for _ in range(10))
