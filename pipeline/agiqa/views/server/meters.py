"""What /metrics tells, in Prometheus' text format; a registry for each server."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Meters:
    """Counters and histograms; all may be used from any thread."""

    def __init__(self) -> None:
        disable_created_metrics()  # a line more for each other line
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # resident memory, CPU seconds, open files
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "agiqa_requests",
            "Requests answered, by route and status.",
            ("route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "agiqa_request_seconds",
            "From the first byte to the answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.images = Counter(
            "agiqa_images",
            "Images by what became of them: scored, ledger, remembered, refused.",
            ("outcome",),
            registry=self.registry,
        )
        self.batches = Histogram(
            "agiqa_batch_images",
            "Images in one call of the run.",
            buckets=IMAGES,
            registry=self.registry,
        )
        self.waiting = Gauge("agiqa_waiting", "What is in the queue.", registry=self.registry)

    def text(self) -> bytes:
        """Write all figures as Prometheus scrapes them."""
        return generate_latest(self.registry)
