"""Checks of a store: one probe object is created, refused a second time, listed, read in part, and deleted.

The probe also tells how far the store's clock is from ours: S3 refuses what is signed 15 minutes off.
"""

from __future__ import annotations

import secrets
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kubesae.doctor.check import failed, ok, warning
from kubesae.doctor.machine import existing
from kubesae.store import open_store
from kubesae.store.store import PROBE_PREFIX
from kubesae.units import duration, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubesae.doctor.check import Check
    from kubesae.store import Store

T = TypeVar("T")

DEADLINE = 20.0
SKEW_WARNING = 30.0
SKEW_LIMIT = 600.0
_DATA = bytes(range(64))


def store_checks(name: str, url: str) -> Iterator[Check]:
    """Check the store at `url`. Raises what the store raises.

    Of a folder that is not there yet, the nearest folder above it is tried: nothing but the probe object is made.
    """
    store = open_store(url, deadline=DEADLINE)
    if not store.url.startswith("s3://"):
        folder = existing(Path(store.url))
        url = f"{url} ({size(shutil.disk_usage(folder).free)} free)"
        if str(folder) != store.url:
            store = open_store(str(folder))
            url += f", not there yet; tried in {folder}"
    yield from _Probe(store, name, url).run()


class _Probe:
    """One probe object, and how long each step with it took."""

    def __init__(self, store: Store, name: str, url: str) -> None:
        self._store = store
        self._name = name
        self._url = url
        self._key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        self._took: dict[str, float] = {}

    def run(self) -> Iterator[Check]:
        began = datetime.now(UTC)
        created = self._step("create", lambda: self._store.create(self._key, _DATA))
        ended = datetime.now(UTC)
        try:
            problem, written = self._promises(created)
        finally:
            self._step("delete", lambda: self._store.delete(self._key))
        if problem is None and self._key in self._store.list(self._key):
            problem = "a deleted object is still listed"
        if problem is not None:
            advice = "Use a store with conditional writes and consistent listings: two workers could commit one part."
            yield failed(self._name, f"{self._url}: {problem}", advice)
            return
        times = ", ".join(f"{step} {seconds * 1000:.0f} ms" for step, seconds in self._took.items())
        yield ok(self._name, f"{self._url}: {times}")
        if written is not None:
            yield _clock(f"{self._name} clock", began, ended, written)

    def _promises(self, created: bool) -> tuple[str | None, datetime | None]:  # noqa: FBT001 - an answer, not a switch
        """Return which promise the store does not keep, if one, and when it says that the object was written."""
        if not created:
            return "an object that was not there was not created", None
        if self._step("create again", lambda: self._store.create(self._key, b"")):
            return "it replaces an object although told not to (it ignores If-None-Match)", None
        listed = self._step("list", lambda: self._store.list(self._key))
        if self._key not in listed:
            return "a new object is not listed", None
        if self._step("ranged read", lambda: self._store.read(self._key, 7, 23)) != _DATA[7:23]:
            return "a ranged read gives other bytes than were written", None
        return None, listed[self._key].modified

    def _step(self, step: str, action: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return action()
        finally:
            self._took[step] = time.monotonic() - began


def _clock(name: str, began: datetime, ended: datetime, written: datetime) -> Check:
    """Check the time that the store gave an object which was written between `began` and `ended`."""
    if began.replace(microsecond=0) <= written <= ended:  # S3 gives whole seconds
        return ok(name, "agrees with this machine's")
    skew = (written - began).total_seconds()
    found = f"{duration(abs(skew))} {'ahead of' if skew > 0 else 'behind'} this machine's"
    if abs(skew) > SKEW_LIMIT:
        return failed(
            name, found, "Set this machine's clock (NTP): S3 refuses requests that are signed 15 minutes off."
        )
    if abs(skew) > SKEW_WARNING:
        return warning(name, found, "Set this machine's clock (NTP): ages and time limits go by it.")
    return ok(name, found)
