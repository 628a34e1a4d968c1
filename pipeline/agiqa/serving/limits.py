"""What one server takes at most; every limit has its answer in words and its status."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Beside these, `agiqa.images.MAX_PIXELS` holds for each image (refused by its header)."""

    request_bytes: int = 64 * MIB  # counted as they come in: 413
    files: int = 64  # in a request: 400
    prompt_bytes: int = 4096  # of a generation prompt: 400
    requests: int = 64  # that send or wait at once: 503
    queue: int = 512  # images that wait for the models: 503
    seconds: float = 300.0  # from the first byte to the answer: 504
    batch: int = 16  # images in one call of the run
    gather_seconds: float = 0.01  # that the first of a batch waits for others
    remembered: int = 20_000  # scores kept in memory, about 1 KB each
