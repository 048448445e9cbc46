"""Prometheus metrics of the long programs, served by the program itself: `--metrics-port`, or $KUBESAE_METRICS_PORT.

    kubesae collect experiment.yaml --index 0 --of 4 --metrics-port 9090

They are what the programs report anyway: the events of collection, the metrics lines of training, the tally of the
store. docs/metrics.md has them all. Nothing is served unless asked for, and of several ranks only the first serves.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from kubesae.errors import ConfigError
from kubesae.store import TALLY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Counter, Gauge

M = TypeVar("M", bound="Metrics")


class Metrics:
    """The metrics of one process: which program it is, and what its calls on stores went through."""

    program = ""

    def __init__(self, experiment: str) -> None:
        """Begin at nothing."""
        from prometheus_client import CollectorRegistry, Info, disable_created_metrics  # noqa: PLC0415 - an extra

        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        Info("kubesae_program", "which program this is", registry=self.registry).info(
            {"program": self.program, "experiment": experiment}
        )
        self.registry.register(_StoreCollector())

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        from prometheus_client import Gauge  # noqa: PLC0415

        return Gauge(f"kubesae_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        from prometheus_client import Counter  # noqa: PLC0415

        return Counter(f"kubesae_{name}", text, registry=self.registry)


class CollectMetrics(Metrics):
    """Of collection: see `metered_events`."""

    program = "collect"

    def __init__(self, experiment: str) -> None:
        """Begin at nothing."""
        super().__init__(experiment)
        self.shard_tokens = self._gauge("collect_shard_tokens", "tokens of a shard that are committed", "shard")
        self.shard_wanted = self._gauge("collect_shard_tokens_wanted", "tokens of a shard to collect", "shard")
        self.tokens = self._counter("collect_tokens", "tokens that this process has committed")
        self.bytes = self._counter("collect_bytes", "bytes of tars that this process has committed")
        self.parts = self._counter("collect_parts", "parts that this process has committed")
        self.queue = self._gauge("collect_queue_parts", "parts that wait for their upload")


class PilotMetrics(CollectMetrics):
    """Of a pilot, which collects too."""

    program = "pilot"


class TrainMetrics(Metrics):
    """Of trainings: the fields of their metrics lines."""

    program = "train"
    _STEP = (
        ("step", "steps", "optimiser steps that are done"),
        ("rows", "tokens", "rows that are trained on"),
        ("loss", "loss", "loss of recent steps"),
        ("l0", "l0", "active features of a row, of recent steps"),
        ("lr", "learning_rate", "learning rate"),
        ("tokens_per_second", "tokens_per_second", "rows a second, of recent steps"),
        ("data_wait_share", "data_wait_share", "share of the time in which steps wait for data"),
    )
    _EPOCH = (
        ("epoch", "epochs", "epochs that are done"),
        ("val_loss", "validation_loss", "loss on validation rows"),
        ("l0", "validation_l0", "active features of a validation row"),
        ("fvu", "fvu", "fraction of variance unexplained, of validation rows"),
        ("dead_share", "dead_share", "share of features that are dead"),
    )

    def __init__(self, experiment: str) -> None:
        """Begin at nothing."""
        super().__init__(experiment)
        self._fields = {
            kind: {field: self._gauge(f"training_{name}", text, "sae") for field, name, text in fields}
            for kind, fields in (("step", self._STEP), ("epoch", self._EPOCH))
        }

    def measured(self, sae: str, line: dict[str, Any]) -> None:
        """Take in a line of an SAE's metrics."""
        for field, gauge in self._fields[line["kind"]].items():
            if line.get(field) is not None:
                gauge.labels(sae).set(line[field])


class _StoreCollector:
    """Reads the store's tally when metrics are asked for."""

    def collect(self) -> Iterable[Any]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

        retries = CounterMetricFamily(
            "kubesae_store_retries", "attempts on the store that failed and were made again", labels=["reason"]
        )
        for reason, count in list(TALLY.retries.items()):
            retries.add_metric([reason], count)
        yield retries
        yield CounterMetricFamily("kubesae_store_errors", "calls on the store that were given up", value=TALLY.given_up)


@contextmanager
def serving(kind: type[M], experiment: str, port: int | None) -> Iterator[M | None]:
    """Serve metrics on `port` while the context lasts; nothing without a port, or on a rank other than the first.

    Raises:
        ConfigError: the port is taken.

    """
    if port is None or os.environ.get("RANK", "0") != "0":
        yield None
        return
    from prometheus_client import start_http_server  # noqa: PLC0415

    metrics = kind(experiment)
    try:
        server, thread = start_http_server(port, registry=metrics.registry)
    except OSError as error:
        raise ConfigError(f"Metrics cannot be served on port {port}: {error.strerror}. Choose another one.") from error
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
