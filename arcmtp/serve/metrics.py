"""What Prometheus can scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from arcmtp import __version__
from arcmtp.engine.prefix_cache import Counts
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.serve.model_thread import ModelThread
from arcmtp.serve.reply import Reply

_DRAFT_LENGTHS = range(MAX_ROWS - 1)
_GAP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The server's own registry, so that nothing else of the process appears in it. model: its name towards clients."""

    def __init__(self, model_thread: ModelThread, model: str) -> None:
        self._registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        Info("arcmtp_build", "What runs here", registry=r).info({"version": __version__, "model": model})
        self._requests = Counter("arcmtp_requests", "HTTP requests", ["route", "status"], registry=r)
        self._prompt = Counter("arcmtp_prompt_tokens", "Tokens of prompts", registry=r)
        self._cached = Counter("arcmtp_cached_tokens", "Tokens of prompts not evaluated again", registry=r)
        self._completion = Counter("arcmtp_completion_tokens", "Tokens generated", registry=r)
        self._prompt_seconds = Counter("arcmtp_prompt_seconds", "Time on the device for prompts", registry=r)
        self._decode_seconds = Counter("arcmtp_decode_seconds", "Time on the device after prompts", registry=r)
        self._drafted = Counter("arcmtp_drafted_tokens", "Tokens drafted", registry=r)
        self._accepted = Counter("arcmtp_accepted_tokens", "Drafted tokens that were accepted", registry=r)
        self._draft_seconds = Counter("arcmtp_draft_seconds", "Time on the device for draft calls", registry=r)
        self._draft_length = Histogram(
            "arcmtp_draft_length", "Tokens drafted in a cycle", buckets=_DRAFT_LENGTHS, registry=r
        )
        self._queue = Histogram("arcmtp_queue_seconds", "Wait for the device", buckets=_SECONDS, registry=r)
        self._first = Histogram(
            "arcmtp_first_token_seconds", "From the request to its first token", buckets=_SECONDS, registry=r
        )
        self._gap = Histogram(
            "arcmtp_token_gap_seconds", "Between two tokens of a choice", buckets=_GAP_SECONDS, registry=r
        )
        self.token_gap = self._gap.observe
        self._duration = Histogram(
            "arcmtp_request_seconds", "HTTP requests, by route", ["route"], buckets=_SECONDS, registry=r
        )
        r.register(_Checkpoints(model_thread))
        Gauge("arcmtp_requests_running", "On the device", registry=r).set_function(lambda: model_thread.running)
        Gauge("arcmtp_requests_queued", "Waiting for it", registry=r).set_function(lambda: model_thread.queued)
        Gauge("arcmtp_ready", "1 if requests are accepted", registry=r).set_function(
            lambda: float(model_thread.state == "ready")
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request."""
        self._requests.labels(route, status).inc()
        self._duration.labels(route).observe(seconds)

    def reply(self, reply: Reply, began: float) -> None:
        """Count what a generation took, complete or not; `began` is when its request came."""
        usage, timings = reply.usage(), reply.timings
        self._prompt.inc(usage["prompt_tokens"])
        self._cached.inc(usage["prompt_tokens_details"]["cached_tokens"])
        self._completion.inc(usage["completion_tokens"])
        self._prompt_seconds.inc(timings.prompt_seconds)
        self._decode_seconds.inc(timings.decode_seconds)
        for draft in reply.drafts:
            self._drafted.inc(draft.calls)
            self._accepted.inc(draft.accepted)
            self._draft_seconds.inc(draft.calls * (draft.mean_us or 0.0) / 1e6)
            for length, cycles in enumerate(draft.lengths):
                for _ in range(cycles):
                    self._draft_length.observe(length)
        if reply.first_token:
            self._queue.observe(timings.queue_seconds)
            self._first.observe(reply.first_token - began)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Checkpoints(Collector):
    """What the cache of checkpoints holds and has done."""

    def __init__(self, model_thread: ModelThread) -> None:
        self._model_thread = model_thread

    def collect(self) -> Iterator[Metric]:
        cache = self._model_thread.prefix_cache
        nbytes = GaugeMetricFamily("arcmtp_checkpoint_bytes", "Memory that checkpoints take", labels=["memory"])
        nbytes.add_metric(["device"], cache.device_bytes if cache else 0)
        nbytes.add_metric(["host"], cache.host_bytes if cache else 0)
        yield nbytes
        yield GaugeMetricFamily("arcmtp_checkpoints", "States that prompts can go on from", len(cache) if cache else 0)
        counts = cache.counts if cache else Counts()
        for name, text, value in (
            ("hits", "Prompts that went on from a checkpoint", counts.hits),
            ("saved", "Checkpoints that were made", counts.saved),
            ("moved", "Checkpoints that went from the device to host memory", counts.moved),
            ("evicted", "Checkpoints that were dropped for want of memory", counts.evicted),
        ):
            yield CounterMetricFamily(f"arcmtp_checkpoints_{name}", text, value)
