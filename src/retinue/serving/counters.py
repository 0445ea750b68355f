"""What is counted, as Prometheus reads it. One registry a server; names of models and statuses are
the only labels that requests have a say in, and only by those that there are."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Counters:
    """Of one server."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter(
            "retinue_requests", "Requests answered", ["route", "method", "status"], registry=own
        )
        self.seconds = Histogram(
            "retinue_request_seconds", "From headers to answer", ["route"], buckets=_SECONDS,
            registry=own,
        )  # fmt: skip
        self.images = Counter(
            "retinue_images", "Images by what came of them", ["model", "outcome"], registry=own
        )
        self.not_finite = Counter(
            "retinue_not_finite", "Images of which a model said nothing finite", ["model"],
            registry=own,
        )  # fmt: skip
        self.batches = Histogram(
            "retinue_batch_images", "Images that went through a model at once", ["model"],
            buckets=_SIZES, registry=own,
        )  # fmt: skip
        self.inference = Histogram(
            "retinue_inference_seconds", "What a batch took", ["model"], buckets=_SECONDS,
            registry=own,
        )  # fmt: skip
        self.pending = Gauge("retinue_pending_images", "Images under way", ["model"], registry=own)
        self.reloads = Counter(
            "retinue_reloads", "Model files that changed", ["model", "outcome"], registry=own
        )
        self.decoders = Counter(
            "retinue_decoder_restarts", "Processes that a picture ended", registry=own
        )

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
