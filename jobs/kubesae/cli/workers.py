"""Several collecting processes on one machine, and the live table over them.

Each worker is `kubesae collect --index I --of N` with its share of the cores; the table reads the ledger, which is all
there is to know, so it shows the same for one worker, several, or workers on other machines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae.cli.console import say
from kubesae.errors import EXIT_INTERRUPTED, EXIT_USER, Interrupted, KubesaeError, UserError
from kubesae.experiment import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kubesae.cli.shard_table import ShardTable
    from kubesae.experiment import Experiment
    from kubesae.store import Store

POLL_SECONDS = 1.0
STOP_SECONDS = 10.0
LAST_LOOK_SECONDS = 2.0


def run_workers(experiment: Experiment, store: Store, workers: int) -> None:
    """Collect every shard with `workers` processes.

    Raises:
        Interrupted: we were stopped; the workers have been too.
        UserError: a worker ended with the user's mistake, which it has printed.
        KubesaeError: a worker died of a fault.

    """
    threads = experiment.collect.threads or max(1, len(os.sched_getaffinity(0)) // workers)
    share = experiment.model_copy(update={"collect": experiment.collect.model_copy(update={"threads": threads})})
    with tempfile.TemporaryDirectory() as folder, live(store, experiment, range(experiment.num_shards)) as line:
        file = Path(folder) / "experiment.yaml"
        file.write_bytes(canonical_json(share.model_dump(mode="json")))
        processes = [_start(file, i, workers) for i in range(workers)]
        readers = [threading.Thread(target=_forward, args=(process, line)) for process in processes]
        for reader in readers:
            reader.start()
        try:
            codes = _wait(processes)
        finally:
            _stop(processes)
            for reader in readers:
                reader.join()
    _judge(codes)


def _start(file: Path, index: int, of: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "kubesae", "collect", str(file), "--index", str(index), "--of", str(of)]
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=os.environ | threads)  # noqa: S603 - ourselves


def _forward(process: subprocess.Popen[str], line: Callable[[str], None]) -> None:
    if process.stdout is not None:
        for text in process.stdout:
            line(text.rstrip("\n"))


def _wait(processes: Sequence[subprocess.Popen[str]]) -> list[int]:
    """Wait for all; when one fails the others are stopped: what they committed stays."""
    while True:
        codes = [process.poll() for process in processes]
        if all(code is not None for code in codes) or any(codes):
            _stop(processes)
            return [process.wait() for process in processes]
        time.sleep(0.1)


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _judge(codes: Sequence[int]) -> None:
    if EXIT_USER in codes:
        raise UserError("A worker stopped because its input cannot work as it is; it says why above. Mend that first.")
    for index, code in enumerate(codes):
        if code == -signal.SIGKILL:
            raise KubesaeError(
                f"Worker {index} was killed (SIGKILL): where nobody did that, memory ran out. Use fewer --workers or a "
                "smaller --forward-batch, and start again: it goes on from its last part."
            )
        if code not in {0, EXIT_INTERRUPTED, -signal.SIGTERM}:
            raise KubesaeError(
                f"Worker {index} ended with exit code {code}. Start again: it goes on from its last part."
            )
    if any(codes):
        raise Interrupted("The workers were stopped. Start again to go on from what is committed.")


@contextmanager
def live(store: Store, experiment: Experiment, shards: Sequence[int]) -> Iterator[Callable[[str], None]]:
    """Show a live row for each shard while the body runs, on a terminal; give the body what prints a line above it."""
    if not sys.stdout.isatty() or not shards:
        yield say
        return
    from kubesae.cli.shard_table import ShardTable  # noqa: PLC0415 - rich, and only for a terminal
    from kubesae.monitor import collection_rows, observe_collection  # noqa: PLC0415

    with ShardTable(lambda: collection_rows(observe_collection(store, experiment, shards))) as table:
        done = threading.Event()
        thread = threading.Thread(target=_refresh, args=(table, done), daemon=True)
        thread.start()
        try:
            yield table.print
        finally:
            done.set()
            thread.join(LAST_LOOK_SECONDS)
        if not thread.is_alive():
            _look(table)


def _refresh(table: ShardTable, done: threading.Event) -> None:
    while not done.wait(table.pause(POLL_SECONDS)):
        _look(table)


def _look(table: ShardTable) -> None:
    with suppress(KubesaeError):  # the work itself will say what is wrong with the store
        table.refresh()
