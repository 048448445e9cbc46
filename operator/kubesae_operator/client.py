"""The Kubernetes API by the official client's own connection: JSON in, JSON out, every wait bounded.

The client's typed objects are left out: decoding them costs a millisecond and forty kilobytes a Pod.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.config import load_incluster_config, load_kube_config

from kubesae_operator.api import MANAGER

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
JSON = "application/json"


class ApiError(Exception):
    """The API server answers, but with a refusal."""

    def __init__(self, status: int, message: str) -> None:
        """Keep both."""
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message


class Unanswered(Exception):  # noqa: N818 - it names what happened
    """No answer, or not a whole one."""


class Api:
    """Requests to one API server. Thread-safe."""

    def __init__(self, configuration: Configuration, connections: int = 32) -> None:
        """Connect to nothing yet."""
        configuration.connection_pool_maxsize = connections
        configuration.retries = False
        self._client = ApiClient(configuration)
        self._host = configuration.host

    @classmethod
    def connect(cls) -> Api:
        """Return the API of the cluster that this runs in, or else of the kubeconfig."""
        configuration = Configuration()
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(configuration)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return an object or a list."""
        return self._json("GET", path, query)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object."""
        return self._json("POST", path, {"fieldManager": MANAGER}, body, JSON)

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object, if it is of the version that the body names."""
        return self._json("PUT", path, {"fieldManager": MANAGER}, body, JSON)

    def merge(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of an object."""
        return self._json("PATCH", path, {"fieldManager": MANAGER}, body, MERGE)

    def apply(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make the fields of the body ours (server-side apply)."""
        return self._json("PATCH", path, {"fieldManager": MANAGER, "force": "true"}, body, APPLY)

    def stream(self, path: str, silence: float, **query: str) -> urllib3.BaseHTTPResponse:
        """Return an answer whose body is still to be read; reading gives up after `silence` seconds without a byte."""
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=silence)
        return self._send("GET", path, query, None, "", timeout)

    def _json(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None = None, kind: str = ""
    ) -> dict[str, Any]:
        answer = self._send(
            method, path, query, body, kind, urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS)
        )
        try:
            result: dict[str, Any] = json.loads(answer.read())
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            answer.close()
            raise Unanswered(f"{method} {path}: {error!r}") from error
        answer.release_conn()
        return result

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        kind: str,
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": JSON, "User-Agent": MANAGER, **({"Content-Type": kind} if kind else {})}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        pool: urllib3.PoolManager = self._client.rest_client.pool_manager
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=timeout,
                preload_content=False,
            )
            if answer.status < 300:
                return answer
            data = answer.read()
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unanswered(f"{method} {path}: {error!r}") from error
        raise ApiError(answer.status, _message(data))


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")[:300]
