"""The loop: what has changed is observed, decided and applied, by a few workers, an experiment by one at a time."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from kubesae_operator.apply import Applier
from kubesae_operator.client import ApiError, Unanswered
from kubesae_operator.observe import Observer
from kubesae_operator.queue import WorkQueue
from kubesae_operator.reconcile import reconcile

if TYPE_CHECKING:
    from kubesae_operator.api import Key
    from kubesae_operator.client import Api
    from kubesae_operator.election import Election
    from kubesae_operator.health import Health
    from kubesae_operator.metrics import Metrics

log = logging.getLogger(__name__)

WORKERS = 4
TURN_SECONDS = 5.0


class Controller:
    """Runs the experiments of a cluster, or of one namespace, while this replica leads."""

    def __init__(self, api: Api, namespace: str, instance: str, metrics: Metrics) -> None:
        """Ask for nothing yet."""
        self._queue = WorkQueue()
        self.observer = Observer(api, namespace, self._queue.add)
        self._applier = Applier(api, instance, metrics.writes)
        self._metrics = metrics

    def wake_all(self) -> None:
        """Look at every experiment: what others did meanwhile is not known."""
        for key in list(self.observer.experiments.objects):
            self._queue.add(key)

    def run(self, election: Election, health: Health, stop: threading.Event) -> None:
        """Work until `stop`."""
        workers = [
            threading.Thread(target=self._work, args=(election, stop), name=f"worker-{number}", daemon=True)
            for number in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        while not stop.wait(TURN_SECONDS):
            self._metrics.leads.set(election.leads)
            if not election.leads:
                self._metrics.clear()
            if all(worker.is_alive() for worker in workers):
                health.turned()
        self._queue.close()

    def _work(self, election: Election, stop: threading.Event) -> None:
        while (key := self._queue.take()) is not None and not stop.is_set():
            if not election.leads or not self.observer.synced:
                self._queue.done(key)
                if election.leads:
                    self._queue.add(key, 1.0)
                continue
            try:
                with self._metrics.seconds.time():
                    again = self._turn(key, election)
            except (ApiError, Unanswered) as error:
                self._metrics.errors.inc()
                log.warning("%s/%s: %s; again in %.0f s", *key, error, self._queue.failed(key))
            except Exception:
                self._metrics.errors.inc()
                log.exception("%s/%s failed; again in %.0f s", *key, self._queue.failed(key))
            else:
                self._queue.done(key)
                if again is not None:
                    self._queue.add(key, again)

    def _turn(self, key: Key, election: Election) -> float | None:
        """Observe, decide, apply; return the seconds after which to look again, None if there is nothing any more."""
        began = time.monotonic()
        seen = self.observer.observe(key)
        if seen is None:
            self._applier.forget(key)
            self._metrics.forget(key)
            return None
        observed, wait = seen
        if not election.leads:  # the look took long
            return None
        actions = reconcile(observed)
        self._metrics.note(observed, actions)
        left = self._applier.apply(observed.experiment, actions)
        log.debug("%s/%s: %.2f s, %d patches", *key, time.monotonic() - began, len(actions.patches))
        return min(wait, left) if left else wait
