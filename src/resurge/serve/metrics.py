"""What `/metrics` counts, in the format of Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counts of one server; another one in the same process has its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: Any = {"namespace": "resurge", "registry": self.registry}
        served = "requests by route and status; 499: the client left"
        self.requests = Counter("requests", served, ["route", "status"], **own)
        spent = "from the header of a request to its response"
        self.seconds = Histogram("request_seconds", spent, ["route"], buckets=_SECONDS, **own)
        self.images = Counter("images", "images by outcome: ok, or why there is no result", ["outcome"], **own)
        self.rejected = Counter("rejected", "requests refused before their images were read", ["reason"], **own)
        self.batch_images = Histogram("batch_images", "images in a batch", buckets=_BATCHES, **own)
        worked = "seconds the model worked on a batch"
        self.batch_seconds = Histogram("batch_seconds", worked, buckets=_SECONDS, **own)
        self.queue = Gauge("queue_images", "images accepted and without a result yet", **own)
        self.waiting = Gauge("waiting_images", "decoded images that wait for the model", **own)
        self.queue_limit = Gauge("queue_limit_images", "images that may be accepted", **own)
        self.ready = Gauge("ready", "1 when /readyz says so", **own)

    def batch(self, images: int, seconds: float) -> None:
        """Count one batch."""
        self.batch_images.observe(images)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
