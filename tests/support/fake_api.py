"""A Kubernetes API server in a thread: objects in memory, listed, watched and written, with the faults of real ones.

    with FakeApi() as server:
        server.put("/apis/batch/v1", "jobs", {"metadata": {"namespace": "a", "name": "b"}})
        server.next("GET .*/jobs.*watch=1", Fault(cut=True))
        api = server.client()

A kind that was not named by `kinds` is unknown (404) until it is. Versions are numbers that grow; `forget` makes the
server lose the old ones, as a compaction does. `requests` are those that came, as `METHOD path?query`.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from kubernetes.client.configuration import Configuration

from kubesae_operator.client import Api
from stoppable import Stoppable

SAEX = ("/apis/kubesae.dev/v1alpha1", "saeexperiments")
JOBS = ("/apis/batch/v1", "jobs")
TRAIN_JOBS = ("/apis/kubeflow.org/v1", "pytorchjobs")
PODS = ("/api/v1", "pods")
CORE_EVENTS = ("/api/v1", "events")
SECRETS = ("/api/v1", "secrets")
CONFIG_MAPS = ("/api/v1", "configmaps")
EVENTS = ("/apis/events.k8s.io/v1", "events")
LEASES = ("/apis/coordination.k8s.io/v1", "leases")
KINDS = {SAEX, JOBS, TRAIN_JOBS, PODS, CORE_EVENTS, SECRETS, CONFIG_MAPS, EVENTS, LEASES}
_PATH = re.compile(
    r"(?P<group>/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?P<status>/status)?"
)

Object = dict[str, Any]
Kind = tuple[str, str]


@dataclass(frozen=True)
class Fault:
    """What a request gets in place of its answer: a refusal, a closed connection (`drop`), or of a watch one that
    never says anything (`stall`), ends in the middle of a line (`cut`), is no JSON (`garbage`), ends at once (`empty`),
    or says that the version is too old (`gone`)."""

    status: int = 0
    drop: bool = False
    stall: bool = False
    cut: bool = False
    garbage: bool = False
    empty: bool = False
    gone: bool = False


class FakeApi(Stoppable, ThreadingHTTPServer):
    """Listens from its construction to its end."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.kinds = set(KINDS)
        self.requests: list[str] = []
        self.bodies: list[tuple[str, Object]] = []
        self.objects: dict[tuple[Kind, str, str], Object] = {}
        self.history: list[tuple[int, Kind, str, Object]] = []
        self.version = 1
        self.oldest = 0
        self.closed = False
        self.epoch = 0
        self.watchers = 0  # watches that are open
        self.changed = threading.Condition()
        self._faults: list[tuple[str, Fault]] = []
        self._clients: list[Api] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def client(self) -> Api:
        """Return the operator's client of this server."""
        configuration = Configuration()
        configuration.host = self.url
        configuration.proxy = None
        self._clients.append(Api(configuration))
        return self._clients[-1]

    def stop(self) -> None:
        """End every watch, and listen no more."""
        self.closed = True
        self.end_watches()
        self.shutdown()
        self.server_close()
        for client in self._clients:
            client._client.rest_client.pool_manager.clear()

    def next(self, request: str, *faults: Fault) -> None:
        """Say what the next requests get, one fault each, that this expression is found in."""
        self._faults += [(request, fault) for fault in faults]

    def fault(self, request: str) -> Fault:
        """Return what a request gets."""
        for item in self._faults:
            if re.search(item[0], request):
                self._faults.remove(item)
                return item[1]
        return Fault()

    def count(self, expression: str) -> int:
        """Return how many requests there were in which this is found."""
        return sum(bool(re.search(expression, request)) for request in list(self.requests))

    def get(self, group: str, plural: str, namespace: str, name: str) -> Object:
        """Return an object as it is now."""
        with self.changed:
            return copy.deepcopy(self.objects[(group, plural), namespace, name])

    def put(self, group: str, plural: str, item: Object) -> Object:
        """Make an object, or replace it."""
        with self.changed:
            kind, meta = (group, plural), item["metadata"]
            place = kind, meta["namespace"], meta["name"]
            there = self.objects.get(place)
            self.version += 1
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            defaults = {"uid": str(uuid.uuid4()), "creationTimestamp": now}
            kept = {name: there["metadata"][name] for name in defaults} if there else {}
            meta = {**defaults, **kept, **meta, "resourceVersion": str(self.version)}
            new = self.objects[place] = {**copy.deepcopy(item), "metadata": meta}
            self._tell(kind, "MODIFIED" if there else "ADDED", new)
            return copy.deepcopy(new)

    def delete(self, group: str, plural: str, namespace: str, name: str) -> None:
        """Remove an object."""
        with self.changed:
            item = self.objects.pop(((group, plural), namespace, name))
            self.version += 1
            item["metadata"]["resourceVersion"] = str(self.version)
            self._tell((group, plural), "DELETED", item)

    def bookmark(self) -> None:
        """Tell every watch the present version."""
        with self.changed:
            self.version += 1
            for kind in self.kinds:
                item = {"kind": "Bookmark", "metadata": {"resourceVersion": str(self.version)}}
                self._tell(kind, "BOOKMARK", item)

    def forget(self) -> None:
        """Lose all versions before the present one."""
        with self.changed:
            self.version += 1
            self.oldest = self.version

    def end_watches(self) -> None:
        """Cut the watches off that are open."""
        with self.changed:
            self.epoch += 1
            self.changed.notify_all()

    def _tell(self, kind: Kind, what: str, item: Object) -> None:
        self.history.append((self.version, kind, what, copy.deepcopy(item)))
        self.changed.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about connections that their client has closed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeApi

    def _serve(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        request = f"{self.command} {unquote(self.path)}"
        self.server.requests.append(request)
        if body is not None:
            self.server.bodies.append((request, body))
        fault = self.server.fault(request)
        match = _PATH.fullmatch(urlsplit(self.path).path)
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if fault.drop:
            self.close_connection = True
        elif fault.status:
            self._refuse(fault.status, "as the test says")
        elif match is None or (match["group"], match["plural"]) not in self.server.kinds:
            self._refuse(404, "the server could not find the requested resource")
        elif query.get("watch"):
            self._watch((match["group"], match["plural"]), match["namespace"], query, fault)
        elif self.command == "GET" and not match["name"]:
            self._list((match["group"], match["plural"]), match["namespace"], query)
        else:
            self._one(match, body)

    do_GET = do_PUT = do_POST = do_PATCH = _serve  # the names that http.server calls

    def _list(self, kind: Kind, namespace: str | None, query: dict[str, str]) -> None:
        with self.server.changed:
            found = [item for (k, ns, _), item in sorted(self.server.objects.items()) if _is_in(k, ns, kind, namespace)]
            found = [item for item in found if _is_selected(item, query)]
            version = str(self.server.version)
        first, most = int(query.get("continue", 0)), int(query.get("limit", 1000))
        meta = {"resourceVersion": version}
        if first + most < len(found):
            meta["continue"] = str(first + most)
        self._answer(200, {"items": found[first : first + most], "metadata": meta})

    def _one(self, match: re.Match[str], body: Object | None) -> None:
        kind, namespace, name = (match["group"], match["plural"]), match["namespace"], match["name"]
        with self.server.changed:
            there = self.server.objects.get((kind, namespace, name or (body or {}).get("metadata", {}).get("name")))
            if self.command == "POST" and there:
                return self._refuse(409, "already exists")
            if self.command != "POST" and not there:
                return self._refuse(404, f"{kind[1]} {name!r} not found")
            new = there or {}
            if body is not None:
                new = _merged(new, body) if self.command == "PATCH" else body
                if match["status"]:
                    new = {**new, "status": body["status"]}
                for field in ("uid", "resourceVersion"):
                    if there and new["metadata"].get(field, there["metadata"][field]) != there["metadata"][field]:
                        return self._refuse(409, f"the object has been modified: another {field}")
                new = self.server.put(*kind, new)
        return self._answer(200, new)

    def _watch(self, kind: Kind, namespace: str | None, query: dict[str, str], fault: Fault) -> None:
        server, version = self.server, int(query["resourceVersion"])
        if version < server.oldest:
            return self._refuse(410, "too old resource version")
        self.send_response_only(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        if fault.empty:
            return self._chunk(b"")
        if fault.cut:
            return self._chunk(b'{"type":"ADDED","object":{"meta')
        if fault.garbage:
            return self._chunk(b"<html>Bad gateway</html>\n")
        if fault.gone:
            return self._event("ERROR", {"code": 410, "message": "too old"})
        with server.changed:
            epoch, server.watchers = server.epoch, server.watchers + 1
            while server.epoch == epoch and not server.closed:
                new = [entry for entry in server.history if entry[0] > version and not fault.stall]
                version = max([version, *(entry[0] for entry in new)])
                for _, changed, what, item in new:
                    if _is_in(changed, item["metadata"].get("namespace", namespace), kind, namespace):
                        self._event(what if what == "BOOKMARK" or _is_selected(item, query) else "DELETED", item)
                server.changed.wait()
            server.watchers -= 1
        return None

    def _event(self, what: str, item: Object) -> None:
        line = json.dumps({"type": what, "object": item}).encode() + b"\n"
        self._chunk(line[:-9])  # servers send lines in pieces
        self._chunk(line[-9:])

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _refuse(self, status: int, message: str) -> None:
        self._answer(status, {"kind": "Status", "code": status, "message": message})

    def _answer(self, status: int, item: Object) -> None:
        data = json.dumps(item).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _is_in(kind: Kind, namespace: str | None, asked: Kind, within: str | None) -> bool:
    return kind == asked and within in (None, namespace)


def _is_selected(item: Object, query: dict[str, str]) -> bool:
    """Whether an object has the label of the selector, and the fields of the other one."""
    label = query.get("labelSelector")
    if label and label not in item["metadata"].get("labels", {}):
        return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, equal, value = re.split(r"(!?=)", term, maxsplit=1)
        found: Any = item
        for name in path.split("."):
            found = found.get(name, {})
        if (found == value) != (equal == "="):
            return False
    return True


def _merged(there: Object, change: Object) -> Object:
    """Return an object after a merge patch."""
    new = dict(there)
    for name, value in change.items():
        if isinstance(value, dict):
            new[name] = _merged(there.get(name) or {}, value)
        elif value is None:
            new.pop(name, None)
        else:
            new[name] = value
    return new
