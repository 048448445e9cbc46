"""The objects of one kind as they are now: listed once, then followed, cut down as they come.

What ends other operators as zombies is met here: an answer that falls silent is given up after `SILENCE` (the server
sends a bookmark every minute), one that is cut off or broken is asked for again from where it was, and a version that
the server has forgotten (410) means listing anew. `heard` tells when the last word came, for the liveness probe.
"""

from __future__ import annotations

import json
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import urllib3

from kubesae_operator.client import ApiError, Unanswered

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from kubesae_operator.api import Key
    from kubesae_operator.client import Api

T = TypeVar("T")

log = logging.getLogger(__name__)

PAGE = 250
SILENCE = 150.0
ABSENT_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
SHORT_SECONDS = 1.0
"""an answer that ends so soon, with nothing in it, is a failure"""

GONE = 410
NOT_FOUND = 404
CHUNK_BYTES = 1 << 16


class Watch(Generic[T]):
    """Follows the objects at `path` that the `query` selects.

    `project` cuts an object down; `changed(old, new)` is told of each difference (None: not there). A kind that the
    cluster does not know has no objects, until it appears.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        query: dict[str, str],
        project: Callable[[dict[str, Any]], T],
        changed: Callable[[T | None, T | None], object],
    ) -> None:
        """Ask for nothing yet."""
        self._api = api
        self.path = path
        self._query = query
        self._project = project
        self._changed = changed
        self._version = ""
        self._pause = FIRST_PAUSE
        self.objects: dict[Key, T] = {}
        self.synced = False
        self.absent = False
        self.heard = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop`; no failure ends this."""
        while not stop.is_set():
            try:
                if not self._version:
                    self._list()
                self._follow(stop)
                continue
            except ApiError as error:
                wait = self._refused(error)
            except Unanswered as error:
                log.warning("watch of %s: %s; again in %.1f s", self.path, error, self._pause)
                wait = self._pause
            except Exception:
                log.exception("watch of %s failed; listing again in %.1f s", self.path, self._pause)
                self._version, wait = "", self._pause
            stop.wait(random.uniform(wait / 2, wait))  # noqa: S311 - spreads retries, hides nothing
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _refused(self, error: ApiError) -> float:
        """Note what an error means; return how long to wait."""
        self._version = ""
        if error.status == GONE:
            return FIRST_PAUSE
        if error.status == NOT_FOUND:
            if not self.absent:
                log.info("%s: the cluster has no such kind", self.path)
            self.absent = True
            self._replace({})
            return ABSENT_SECONDS
        log.warning("watch of %s: %s", self.path, error)
        return self._pause

    def _list(self) -> None:
        """Take the objects as they are now."""
        found: dict[Key, T] = {}
        query = {**self._query, "limit": str(PAGE)}
        while True:
            page = self._api.get(self.path, **query)
            self.heard = time.monotonic()
            for item in page["items"]:
                new = self._projected(item)
                if new is not None:
                    found[_key(item)] = new
            token = page["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
        self.absent = False
        self._replace(found)
        self._version = page["metadata"]["resourceVersion"]

    def _replace(self, found: dict[Key, T]) -> None:
        before, self.objects = self.objects, found
        self.synced, self.heard = True, time.monotonic()
        for key in before.keys() | found.keys():
            self._tell(before.get(key), found.get(key))

    def _tell(self, old: T | None, new: T | None) -> None:
        if old != new:
            self._changed(old, new)

    def _follow(self, stop: threading.Event) -> None:
        """Take changes as they come, until the answer ends."""
        seconds = str(random.randint(240, 300))  # noqa: S311 - spreads renewals
        query = {**self._query, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": seconds}
        version, began = self._version, time.monotonic()
        answer = self._api.stream(self.path, SILENCE, **query, resourceVersion=version)
        try:
            for line in _lines(answer):
                self._take(json.loads(line))
                if stop.is_set():
                    return
        except ValueError as error:
            self._version = ""
            raise Unanswered(f"{self.path}: a line is no JSON ({error})") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unanswered(f"{self.path}: {error!r}") from error
        finally:
            answer.close()
        if self._version == version and time.monotonic() - began < SHORT_SECONDS:
            raise Unanswered(f"{self.path}: an answer ended as it began")

    def _take(self, event: dict[str, Any]) -> None:
        item = event["object"]
        if event["type"] == "ERROR":
            raise ApiError(int(item.get("code", 0)), str(item.get("message", item)))
        self.heard = time.monotonic()
        self._pause = FIRST_PAUSE
        self._version = item["metadata"]["resourceVersion"]
        if event["type"] == "BOOKMARK":
            return
        key = _key(item)
        if event["type"] == "DELETED":
            self._tell(self.objects.pop(key, None), None)
            return
        new = self._projected(item)
        if new is not None:
            old, self.objects[key] = self.objects.get(key), new
            self._tell(old, new)

    def _projected(self, item: dict[str, Any]) -> T | None:
        """Cut an object down; None where that fails: one that somebody has made up must not hide all others."""
        try:
            return self._project(item)
        except (KeyError, TypeError, ValueError, AttributeError):
            log.exception("%s: %s/%s cannot be read and is left out", self.path, *_key(item))
            return None


def _key(item: dict[str, Any]) -> Key:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield the complete lines of an answer as they come; what it ends with is no event."""
    rest = b""
    for chunk in answer.stream(CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
