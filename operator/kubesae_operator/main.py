"""The operator's command line.

python -m kubesae_operator --lease-namespace kubesae-system
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from kubernetes.config import ConfigException

from kubesae_operator.client import Api
from kubesae_operator.controller import Controller
from kubesae_operator.election import Election
from kubesae_operator.health import Health, serve
from kubesae_operator.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger("kubesae_operator")

END_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    options = _parser().parse_args(arguments)
    _set_up_logging(options.log_format)
    try:
        api = Api.connect()
    except ConfigException as error:
        log.error("No cluster: %s. Run this in a Pod, or set KUBECONFIG.", error)
        return 2
    metrics = Metrics()
    instance = f"{socket.gethostname()}-{os.getpid()}"
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    controller = Controller(api, options.namespace, instance, metrics)
    election = Election(api, options.lease_namespace or options.namespace or "default", instance, controller.wake_all)
    health = Health(controller.observer.watches, metrics.registry)
    try:
        server = serve(health, options.metrics_port)
    except OSError as error:
        log.error("Port %d cannot be listened at: %s. Give another --metrics-port.", options.metrics_port, error)
        return 2
    elector = _start(partial(election.run, stop), "election")
    for watch in controller.observer.watches:
        _start(partial(watch.run, stop), watch.path)
    _start(server.serve_forever, "http")
    log.info("watching %s", options.namespace or "all namespaces")
    controller.run(election, health, stop)
    elector.join(END_SECONDS)  # it lets go of the lease
    server.shutdown()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("kubesae_operator", description="The operator of SAEExperiments.")
    parser.add_argument("--namespace", default="", help="watch this namespace alone (default: all)")
    parser.add_argument("--lease-namespace", default="", help="where the Lease lies (default: --namespace, or default)")
    parser.add_argument("--metrics-port", type=_port, default=8080, help="port of /metrics, /healthz and /readyz")
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="how lines are logged")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port: give one from 0 (any) to 65535")
    return port


def _start(work: Callable[[], object], name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


class _JsonLines(logging.Formatter):
    """A JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _set_up_logging(form: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(_JsonLines() if form == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("urllib3", "kubesae.store"):  # each retry; what comes of it is told once
        logging.getLogger(name).setLevel(logging.ERROR)
