"""What Prometheus reads at /metrics.

With several workers the numbers lie in files of a folder (PROMETHEUS_MULTIPROC_DIR, which the
server sets before the workers start), and whichever worker is asked adds up those of all.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import prometheus_client as prometheus
from prometheus_client import multiprocess

from lucid.serve.model import Model
from lucid.serve.repository import Entry, Repository

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""The upper bounds of the histogram of latencies."""


@dataclass
class _Seen:
    """How many batches of each size of a model have been counted."""

    name: str
    version: str
    sizes: Counter[int] = field(default_factory=Counter)


class Metrics:
    """The metrics of this worker. `model` and `version` are those of the command line, or empty for
    requests that name no model of it, so that requests cannot make up labels."""

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        where = ["model", "version"]
        self.requests = prometheus.Counter(
            "lucid_requests",
            "Requests for inference, by the status of the answer.",
            [*where, "code"],
            registry=self._registry,
        )
        self.seconds = prometheus.Histogram(
            "lucid_request_seconds",
            "From the whole body being there to the answer being ready.",
            where,
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batches = prometheus.Counter(
            "lucid_batches",
            "Calls of the model by the Batcher, by their number of rows.",
            [*where, "rows"],
            registry=self._registry,
        )
        self._held = prometheus.Gauge(
            "lucid_requests_held",
            "Requests that wait or run now.",
            ["model"],
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self._loads = prometheus.Counter(
            "lucid_model_loads",
            "Attempts to load a model, by result: ok or failed.",
            ["model", "result"],
            registry=self._registry,
        )
        self._seen: WeakKeyDictionary[Model, _Seen] = WeakKeyDictionary()
        _forget_the_dead()

    def loaded(self, model: str, succeeded: bool) -> None:
        self._loads.labels(model, "ok" if succeeded else "failed").inc()

    def look(self, repository: Repository) -> None:
        """Take note of what the models and their queues say."""
        for name, entry in repository.entries.items():
            self._held.labels(name).set(entry.held)
            self.look_at(entry)

    def look_at(self, entry: Entry) -> None:
        """Take note of the batches of a name's models, those too that were replaced and still
        finish requests."""
        name = entry.source.name
        for version, model in entry.models.items():
            self._seen.setdefault(model, _Seen(name, version))
        for model, seen in list(self._seen.items()):
            if seen.name == name:
                now = Counter(model.batch_sizes())
                for rows, count in (now - seen.sizes).items():
                    self._batches.labels(name, seen.version, str(rows)).inc(count)
                seen.sizes = now

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        if FOLDER not in os.environ:
            return prometheus.generate_latest(self._registry)
        registry = prometheus.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return prometheus.generate_latest(registry)


def _forget_the_dead() -> None:
    """Drop the gauges of workers that have ended, whose place this one may have taken."""
    folder = os.environ.get(FOLDER)
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        number = path.stem.rpartition("_")[2]
        if number.isdecimal() and not Path(f"/proc/{number}").exists():
            multiprocess.mark_process_dead(int(number))  # type: ignore[no-untyped-call]
