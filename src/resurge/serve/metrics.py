"""What `/metrics` counts, in the format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counts of one server; another one in the same process has its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "resurge_requests", "requests by route and status; 499: the client left", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "resurge_request_seconds", "from the header of a request to its answer", ["route"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.images = Counter(
            "resurge_images", "images by outcome: ok, or why there is no answer", ["outcome"], registry=registry
        )
        self.rejected = Counter(
            "resurge_rejected", "requests refused before their images were looked at", ["reason"], registry=registry
        )
        self.batch_images = Histogram("resurge_batch_images", "images in a batch", buckets=_BATCHES, registry=registry)
        self.batch_seconds = Histogram(
            "resurge_batch_seconds", "seconds the model worked on a batch", buckets=_SECONDS, registry=registry
        )
        self.queue = Gauge("resurge_queue_images", "images accepted and not answered yet", registry=registry)
        self.waiting = Gauge("resurge_waiting_images", "decoded images that wait for the model", registry=registry)
        self.queue_limit = Gauge("resurge_queue_limit_images", "images that may be accepted", registry=registry)
        self.ready = Gauge("resurge_ready", "1 when /readyz says so", registry=registry)

    def batch(self, images: int, seconds: float) -> None:
        """Count one batch."""
        self.batch_images.observe(images)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
