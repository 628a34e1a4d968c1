"""What one server takes at most; every limit has its answer in words and its status."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bound requests; `agiqa.data.images` bounds each image, by its header."""

    request_bytes: int = 64 * MIB  # counted as they come in: 413
    files: int = 64  # in a request: 400
    prompt_bytes: int = 4096  # of a generation prompt, in UTF-8: 400
    requests: int = 64  # with a body, that send or wait at once: 503
    queue: int = 512  # images that wait for the models: 503
    seconds: float = 300.0  # from a request's head to its answer: 504; and the grace of a stop
    body_seconds: float = 20.0  # that a body may lag behind `body_rate`: 408
    body_rate: int = 4096  # bytes a second
    head_seconds: float = 10.0  # from a connection, or a head's first byte, to its end: closed
    idle_seconds: int = 15  # that a connection is kept between requests: closed
    head_bytes: int = 16 * 1024  # of a request's head: 400
    connections: int = 512  # beyond these 503; fewer where descriptors are few
    backlog: int = 128  # connections that the kernel holds before they are accepted
    decoders: int = 2  # files decoded at once, in processes of their own
    decode_seconds: float = 5.0  # of processor time for an image: that file is refused
    decode_megabytes: int = 2048  # for a decoder with its image: that file is refused
    handed_pixels: int = 4_000_000  # of an image; the models' thread decodes larger ones once more
    handed_bytes: int = 256 * MIB  # of all that wait; likewise
    batch: int = 16  # images in one call of the run
    gather_seconds: float = 0.01  # that the first of a batch waits for others
    remembered: int = 20_000  # scores kept in memory, about 1 KB each
