"""One of several replicas leads: who holds the Lease. The others keep their caches warm and wait.

A leader renews every ten seconds and counts as one for twenty after its last renewal; another takes over after thirty
without, or at once when the leader has ended in order. So at no time are there two, as long as clocks run equally fast.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubesae_operator.client import ApiError, Unanswered

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from kubesae_operator.client import Api

log = logging.getLogger(__name__)

RENEW_SECONDS = 10.0
LEAD_SECONDS = 20.0
LEASE_SECONDS = 30
LOOK_SECONDS = 5.0
NAME = "kubesae-operator"
NOT_FOUND, CONFLICT = 404, 409


class Election:
    """Takes part for `identity`; `elected` is called each time that it begins to lead."""

    def __init__(self, api: Api, namespace: str, identity: str, elected: Callable[[], object]) -> None:
        """Ask for nothing yet."""
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._elected = elected
        self._renewed = float("-inf")
        self._seen: tuple[str, float] = ("", 0.0)

    @property
    def leads(self) -> bool:
        """Whether this replica may act now."""
        return time.monotonic() - self._renewed < LEAD_SECONDS

    def run(self, stop: threading.Event) -> None:
        """Take part until `stop`, then let go."""
        while not stop.is_set():
            led = self.leads
            try:
                self._take()
            except (ApiError, Unanswered) as error:
                log.warning("lease %s/%s: %s", self._namespace, NAME, error)
            except Exception:
                log.exception("lease %s/%s", self._namespace, NAME)
            if led and not self.leads:
                log.warning("%s leads no longer", self._identity)
            stop.wait(RENEW_SECONDS if self.leads else LOOK_SECONDS)
        self._release()

    def _take(self) -> None:
        """Renew the lease, or take it if nobody holds it."""
        began = time.monotonic()
        try:
            lease = self._api.get(self._path(NAME))
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            self._create(began)
            return
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._is_stale(lease, spec):
            self._renewed = float("-inf")
            return
        changes = spec.get("leaseTransitions", 0) + (holder != self._identity)
        since = {"acquireTime": spec["acquireTime"]} if holder == self._identity and "acquireTime" in spec else {}
        self._write(lease, {**self._spec(), **since, "leaseTransitions": changes}, began)

    def _is_stale(self, lease: dict[str, Any], spec: dict[str, Any]) -> bool:
        """Whether its holder has not renewed it for too long, by this machine's clock alone."""
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = version, time.monotonic()
        return time.monotonic() - self._seen[1] > float(spec.get("leaseDurationSeconds", LEASE_SECONDS))

    def _create(self, began: float) -> None:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self._namespace},
            "spec": {**self._spec(), "leaseTransitions": 0},
        }
        try:
            self._api.post(self._path(), body)
        except ApiError as error:
            if error.status != CONFLICT:  # another was faster
                raise
        else:
            self._lead(began)

    def _write(self, lease: dict[str, Any], spec: dict[str, Any], began: float) -> None:
        try:
            self._api.put(self._path(NAME), {**lease, "spec": spec})  # refused if the version has changed meanwhile
        except ApiError as error:
            if error.status != CONFLICT:
                raise
            self._renewed = float("-inf")
        else:
            self._lead(began)

    def _lead(self, began: float) -> None:
        """Lead, by a lease that was asked for at `began`. After a lapse, however short, that is a new beginning."""
        led, self._renewed = self.leads, began
        if self.leads and not led:
            log.info("%s leads", self._identity)
            self._elected()

    def _release(self) -> None:
        if not self.leads:
            return
        self._renewed = float("-inf")
        try:
            lease = self._api.get(self._path(NAME))
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                self._api.put(self._path(NAME), {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
        except (ApiError, Unanswered) as error:
            log.warning("lease %s/%s could not be released: %s", self._namespace, NAME, error)

    def _spec(self) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": now,
            "renewTime": now,
        }

    def _path(self, name: str = "") -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/{name}".rstrip("/")
