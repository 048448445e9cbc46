"""Prometheus metrics of all experiments and of the operator itself. A label is never a Pod, a shard or a message."""

from __future__ import annotations

from collections import Counter as Count
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from kubesae_operator.api import Actions, Key
    from kubesae_operator.bucket import StoreView
    from kubesae_operator.observe import Observed

EXPERIMENT = ["namespace", "experiment"]


class Metrics:
    """The metrics of one operator."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"kubesae_{name}", text, [*EXPERIMENT, *labels], registry=self.registry)

        self._shards = gauge("shards", "shards by state: waiting, running, slow, silent, complete", "state")
        self._tokens = gauge("tokens_total", "tokens that are committed")
        self._wanted = gauge("tokens_wanted", "tokens to collect")
        self._bytes = gauge("bytes_total", "bytes of activations")
        self._rate = gauge("tokens_per_second", "tokens a second over recent commits")
        self._eta = gauge("eta_seconds", "seconds left for collection")
        self._stragglers = gauge("stragglers", "shards that are slow or silent")
        self._lag = gauge("commit_lag_seconds", "seconds since the last commit of a shard that is not complete")
        self._loss = gauge("train_loss", "last loss of an SAE", "sae")
        self._l0 = gauge("train_l0", "last L0 of an SAE", "sae")
        self._phase = gauge("phase", "1 for the state that a phase is in", "phase", "state")
        self._condition = gauge("condition", "1: the condition holds", "type", "reason")
        self._restarts = gauge("restarts", "restarts of the Pods that are there", "phase")
        self._lists = gauge("store_lists", "listings of the last look at the store")
        self._gauges = [value for value in vars(self).values() if isinstance(value, Gauge)]
        self.seconds = Histogram(
            "kubesae_reconcile_duration_seconds", "of one look at an experiment", registry=self.registry
        )
        self.errors = Counter("kubesae_reconcile_errors", "looks that failed", registry=self.registry)
        self.writes = Counter("kubesae_api_writes", "writes to the API, by kind", ["kind"], registry=self.registry)
        self.leads = Gauge("kubesae_operator_leads", "1: this replica leads", registry=self.registry)

    def note(self, observed: Observed, actions: Actions) -> None:
        """Take in what was seen of one experiment."""
        key = observed.experiment.key
        self.forget(key)
        status = actions.status or observed.experiment.status
        for item in status.get("phases", ()):
            self._phase.labels(*key, item["name"], item["state"]).set(1)
        for item in status.get("conditions", ()):
            self._condition.labels(*key, item["type"], item["reason"]).set(item["status"] == "True")
        restarts: Count[str] = Count()
        for pod in observed.pods:
            restarts[pod.phase] += pod.restarts
        for phase, count in restarts.items():
            self._restarts.labels(*key, phase).set(count)
        if observed.view is not None:
            self._note_store(key, observed.view)

    def _note_store(self, key: Key, view: StoreView) -> None:
        self._lists.labels(*key).set(view.lists)
        for sae in view.saes:
            if sae.point is not None:
                self._loss.labels(*key, sae.name).set(sae.point.loss)
                self._l0.labels(*key, sae.name).set(sae.point.l0)
        collection = view.collection
        if collection is None:
            return
        states = Count(shard.state for shard in collection.shards)
        for state, number in states.items():
            self._shards.labels(*key, state).set(number)
        self._stragglers.labels(*key).set(states["slow"] + states["silent"])
        self._tokens.labels(*key).set(collection.tokens)
        self._wanted.labels(*key).set(collection.total)
        self._bytes.labels(*key).set(view.bytes)
        self._rate.labels(*key).set(collection.rate or 0.0)
        if collection.eta is not None:
            self._eta.labels(*key).set(collection.eta)
        ages = [shard.age for shard in collection.shards if shard.state != "complete" and shard.age is not None]
        if ages:
            self._lag.labels(*key).set(max(ages))

    def clear(self) -> None:
        """Drop the series of all experiments: another replica tells of them now."""
        for gauge in self._gauges:
            gauge.clear()

    def forget(self, key: Key) -> None:
        """Drop the series of one experiment."""
        labels = dict(zip(EXPERIMENT, key, strict=True))
        for gauge in self._gauges:
            gauge.remove_by_labels(labels)
