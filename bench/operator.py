# ruff: noqa: A005 - called as its program is; run as bench.operator, it hides nothing
"""What the operator costs a cluster and a bucket, and how old what it shows is: at 10, 100 and 1,000 slots.

    make bench NAME=operator

A real control plane with 1,000 nodes that exist only in the API (kwok), the experiment's own chart, a ledger of 100,000
parts on a real S3 server, of which each slot commits one a minute, and the operator as its own process, with its own
rights. Needs root, as `make cluster` does.

Rows, each against its limit: `rss-mib-<slots>`, the most since its start; `api-writes-per-second-<slots>` and
`lease-writes-per-second-<slots>`, by the API server's audit log; `status-bytes-<slots>`, the most;
`column-age-seconds-<slots>`: for how long `kubectl get saex` showed fewer tokens than were committed, at most;
`lists-per-hour-<slots>`, by the S3 server's access log.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bench.support import fake_nodes
from bench.support.growing_ledger import GrowingLedger
from bench.support.measure import print_row, say
from bench.support.real_operator import USER, RealOperator, install

from harness import CannotRunError, Instance, Local
from kubesae.experiment import Experiment
from releases import Release, give_credentials, open_prefix, s3_client, store_values, write_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from harness import Kube

SLOTS = (10, 100, 1000)
NODES = 1000
PARTS = 100_000
DONE = 0.94
"""share of the parts that is committed before: nearly all, because then a look takes the most listings"""

COMMIT_SECONDS = 60.0
CONTEXT, CONTEXTS_PER_PART = 2048, 16
WINDOW_SECONDS, SETTLE_SECONDS, LOOK_SECONDS = 240.0, 45.0, 10.0
LOOK_GAP = 5.0
BUCKET = "bench"
WRITES = {"create", "update", "patch", "delete", "deletecollection"}

Shown = list[tuple[float, int]]


@dataclass
class Log:
    """What is appended to a log from now on."""

    path: Path
    begin: int = field(init=False)

    def __post_init__(self) -> None:
        self.begin = self.path.stat().st_size

    def lines(self) -> list[str]:
        """Return the whole lines that have come since."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            return file.read().rpartition(b"\n")[0].decode(errors="replace").splitlines()


class Column:
    """The tokens in the table of `kubectl get saex --watch`, with the time at which each line came."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.shown: Shown = []
        self._reader = threading.Thread(target=self._read, name="column", daemon=True)
        self._reader.start()

    @classmethod
    @contextmanager
    def watched(cls, kube: Kube, name: str, namespace: str) -> Iterator[Column]:
        """Let kubectl watch."""
        command = [kube.tools / "kubectl", "get", "saex", name, f"--namespace={namespace}", "--watch"]
        environment = {**os.environ, **kube.environment(), "NO_PROXY": "*"}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            try:
                yield cls(process)
            finally:
                process.terminate()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            words = line.split()  # NAME PHASE SHARDS TOKENS ...
            if words[0] != "NAME":
                self.shown.append((time.time(), int(words[3])))


def oldest(truth: Shown, shown: Shown, start: float, end: float) -> float:
    """Return how many seconds a number was out of date at most while it was shown between `start` and `end`."""
    tokens = [value for _, value in truth]
    ages = [0.0]
    for (came, value), (went, _) in zip(shown, [*shown[1:], (end, 0)], strict=True):
        next_one = bisect_right(tokens, value)  # the first commit that it does not count
        if went > start and came < end and next_one < len(truth):
            ages.append(min(went, end) - truth[next_one][0])
    return max(ages)


@dataclass
class Measured:
    """What one window has shown."""

    seconds: float
    peak_bytes: int
    status_bytes: int
    column_age: float
    writes: int
    leases_per_second: float
    lists_per_hour: float

    def print_rows(self, slots: int) -> None:
        """Print them."""

        def row(case: str, value: float, unit: str, limit: float) -> None:
            print_row("operator", f"{case}-{slots}", value, unit, "lower", "limit", limit)

        row("rss-mib", self.peak_bytes / 2**20, "MiB", 128)
        row("api-writes-per-second", self.writes / self.seconds, "1/s", 0.1)
        row("lease-writes-per-second", self.leases_per_second, "1/s", 0.1)
        row("status-bytes", self.status_bytes, "bytes", 4096)
        row("column-age-seconds", self.column_age, "s", 20)
        row("lists-per-hour", self.lists_per_hour, "1/h", 20_000)


def experiment_of(slots: int) -> dict[str, Any]:
    """Return the description of the experiment: the reference's parts, dealt to `slots` shards."""
    return {
        "data": f"s3://{BUCKET}/slots-{slots}",
        "model": "example/model",
        "layers": [45],
        "corpora": [{"name": "web", "source": "example/web"}, {"name": "mathematics", "source": "example/mathematics"}],
        "tokens": PARTS * CONTEXTS_PER_PART * CONTEXT,
        "num_shards": slots,
        "context": CONTEXT,
        "contexts_per_part": CONTEXTS_PER_PART,
        "pilot": {"tokens": 1_000_000, "chunk": 500_000},  # fewer than a shard has that is committed
        "sae": [{"name": "baseline", "layer": 45, "d_sae": 57_344}],
    }


def ledger_of(local: Local, slots: int) -> GrowingLedger:
    """Write the ledger."""
    experiment = Experiment.model_validate(experiment_of(slots))
    store = open_prefix(local.kube, experiment.data)
    ledger = GrowingLedger(experiment, store, round(DONE * PARTS / slots), COMMIT_SECONDS)
    ledger.plant(local.instance.objects / "objects" / BUCKET / f"slots-{slots}")
    return ledger


@contextmanager
def released(local: Local, slots: int) -> Iterator[Release]:
    """Install the experiment's chart, and uninstall it."""
    kube, name = local.kube, f"slots-{slots}"
    namespace = kube.namespace(name)
    give_credentials(kube, namespace)
    values = {"experiment": experiment_of(slots), "store": store_values(kube)}
    release = Release(kube, namespace, name, [write_values(local.instance.run / f"{name}.yaml", values)])
    release.install()
    try:
        yield release
    finally:
        release.uninstall()


def measure(local: Local, kubeconfig: Path, slots: int, seconds: float) -> Measured:
    """Run an experiment of so many slots, and look at it for a while."""
    say(f"{slots} slots: writing the ledger ...")
    ledger = ledger_of(local, slots)
    log = local.instance.logs / f"operator-{slots}.log"
    with released(local, slots) as release, RealOperator.running(kubeconfig, log) as operator, ledger.growing():
        say(f"{slots} slots: waiting for the Pods ...")
        release.wait_until("it collects", lambda status: status.get("phase") == "Collecting", timeout=120)
        local.kube.wait_for(
            "its Pods run", lambda: ready_pods(release) == slots, timeout=300, namespace=release.namespace
        )
        with Column.watched(local.kube, release.name, release.namespace) as column:
            time.sleep(SETTLE_SECONDS)
            say(f"{slots} slots: measuring for {seconds:.0f} s ...")
            return watch(local.instance, release, operator, ledger, column, seconds)


def watch(
    instance: Instance,
    release: Release,
    operator: RealOperator,
    ledger: GrowingLedger,
    column: Column,
    seconds: float,
) -> Measured:
    """Look for so many seconds."""
    start, audit, s3 = time.time(), Log(instance.audit_log), Log(instance.s3_log)
    status_bytes = 0
    while time.time() < start + seconds:
        operator.check()
        ledger.check()
        status = json.dumps(release.status(), separators=(",", ":"), ensure_ascii=False)
        status_bytes = max(status_bytes, len(status.encode()))
        time.sleep(LOOK_SECONDS)
    end = time.time()
    asked = [json.loads(line) for line in audit.lines() if USER in line]
    written = [request for request in asked if is_write(request)]
    renewals = [request for request in written if request["objectRef"]["resource"] == "leases"]
    return Measured(
        seconds=end - start,
        peak_bytes=operator.peak_bytes(),
        status_bytes=status_bytes,
        column_age=oldest(ledger.truth, column.shown, start, end),
        writes=len(written) - len(renewals),
        leases_per_second=frequency([datetime.fromisoformat(one["requestReceivedTimestamp"]) for one in renewals]),
        lists_per_hour=3600 * frequency_of_looks([time_of(line) for line in s3.lines() if " s3_ListObjects" in line]),
    )


def is_write(request: dict[str, Any]) -> bool:
    """Whether a line of the audit log is a write by the operator."""
    return request["user"]["username"] == USER and request["verb"] in WRITES and request["stage"] == "ResponseComplete"


def frequency(times: Sequence[datetime]) -> float:
    """Return how often a second something happened, from the first time to the last."""
    return (len(times) - 1) / (times[-1] - times[0]).total_seconds() if len(times) > 1 else 0.0


def time_of(line: str) -> datetime:
    """Return the time in a line of the S3 server's access log: the part in brackets."""
    return datetime.strptime(line.partition("[")[2].partition("]")[0], "%d/%B/%Y:%H:%M:%S %z")


def frequency_of_looks(times: Sequence[datetime]) -> float:
    """Return how many listings there are a second, over whole looks: a window cuts the first and the last one.

    `times` ascend. Listings of one look follow each other within seconds, and looks are at least 15 s apart.
    """
    begins = [i for i in range(1, len(times)) if (times[i] - times[i - 1]).total_seconds() > LOOK_GAP]
    if len(begins) < 2:
        return 0.0
    first, last = begins[0], begins[-1]
    return (last - first) / (times[last] - times[first]).total_seconds()


def ready_pods(release: Release) -> int:
    """Return how many Pods collect."""
    return sum(job["status"].get("ready", 0) for job in release.jobs("collect"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each number of slots, and print its rows."""
    parser = argparse.ArgumentParser("bench.operator")
    parser.add_argument("slots", nargs="*", type=int, default=SLOTS, help="numbers of slots (default: 10 100 1000)")
    parser.add_argument("--seconds", type=float, default=WINDOW_SECONDS, help="how long to look at each")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster has to go down
    try:
        local = Local.up(Instance("bench"), without_node=True)
    except CannotRunError as error:
        say(f"bench: {error}")
        return 2
    with local:
        say(f"making {NODES} nodes ...")
        fake_nodes.start(local, NODES)
        local.kube.apply(local.programs.training_operator_crd.read_text())
        kubeconfig = install(local)
        s3_client(local.kube).create_bucket(Bucket=BUCKET)
        for slots in options.slots:
            measure(local, kubeconfig, slots, options.seconds).print_rows(slots)
            shutil.rmtree(local.instance.objects / "objects" / BUCKET / f"slots-{slots}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
