"""What runs in a forked process of the fault suite: a real program, until something happens to it at a named point.

The fork server imports this module, and with it torch and transformers, once; each fault then costs a fork. No code of
the product knows of it: all that outlives a process passes the `Store` interface, so the points are before, amid and
after its calls, amid a forward pass, and at each step of training. Every passage is appended to a file that outlives a
SIGKILL; the test reads there where the process died, and what was in progress.

Points: `in forward`, `tokenise`, `step`, `count` (of codes), `deletion`; `in part` and `in completion` of an upload in
parts; and `before X`, `in X`, `after X` of each object X of `_OBJECTS`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import random
import re
import resource
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoModel, AutoTokenizer  # noqa: F401 - loaded before the fork
from transformers.models.llama import modeling_llama  # noqa: F401 - the same

import kubesae.cli.collect
import kubesae.cli.prepare
import kubesae.cli.train
import kubesae.collect.capture
import kubesae.collect.publish
import kubesae.interpret.run
import kubesae.prepare
import kubesae.train
import kubesae.train.passes
from kubesae.cli.main import main
from kubesae.corpus import Tokenizer
from kubesae.interpret.statistics import Statistics
from kubesae.model.resident import ResidentEngine
from kubesae.store import s3, s3_connection, s3_transfer
from kubesae.store.local import LocalStore
from kubesae.store.s3 import S3Store
from kubesae.train.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

_OBJECTS = {
    r"tokens/segments/.*/digests-.*": "digests",
    r"tokens/segments/.*\.npy": "segment ids",
    r"tokens/segments/.*\.parquet": "segment documents",
    r"tokens/segments/.*\.json": "segment",
    r"tokens/shard-.*": "shard ids",
    r"tokens/documents-.*": "shard documents",
    r"tokens/dealt-.*": "dealt",
    r"tokens/tokenizer\.json": "tokenizer",
    r"tokens/manifest\.json": "manifest",
    r"activations/moments/layer-0*(\d+)/shard-.*": "moments of layer {}",
    r"activations/layer-0*(\d+)/.*\.tar": "tar of layer {}",
    r"activations/ledger/.*": "record",
    r"sae/.*/trainer\.safetensors": "trainer tensors",
    r"sae/.*/sae\.safetensors": "weights",
    r"sae/.*/metadata\.json": "metadata",
    r"sae/.*/trainer\.json": "checkpoint",
    r"sae/.*/best\.json": "pointer",
    r"sae/.*/metrics/.*": "metrics",
    r"sae/.*/report\.html": "report",
    r"interpret/.*/codes/.*": "codes",
    r"interpret/.*/units/.*": "unit",
    r"interpret/.*/(?:statistics|examples|samples)\.parquet": "table",
    r"interpret/.*/interpret\.json": "interpretation",
    r"interpret/.*/(?:labels|logits|neighbours|coactivation|populations)\.parquet": "answer",
    r"interpret/.*/answers\.json": "answers",
    r"interpret/.*/page/.*": "page file",
    r"interpret/.*/index\.html": "page",
}
_PARTS = {"upload_part": "in part", "complete_multipart_upload": "in completion"}
_MODULE_OF_A_PASS = 31  # of the modules that run in a forward pass: layer 1 is captured, layer 2 is being computed
_LONGEST_REQUEST = 0.004  # seconds that a small request takes about


@dataclass(frozen=True)
class Fault:
    """What a process does to itself when it passes a point for the `passage`-th time: kill, stop, eat (memory)."""

    point: str
    passage: int = 1
    action: str = "kill"


@dataclass(frozen=True)
class Task:
    """What a forked process does.

    Attributes:
        arguments: of the command line.
        folder: where it writes `log` and `passages`.
        environment: variables to set.
        fault: what happens to it.
        pause: seconds that each forward pass, tokenisation and step takes longer: something is in progress for a while.
        other_device: activations differ a little, as those of another kind of device do.
        cgroup: file to write the process number to.
        file_bytes: size that no file may exceed.
        part_bytes: size of the parts of an upload, and of the largest object that goes up in one.

    """

    arguments: tuple[str, ...]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    pause: float = 0.0
    other_device: bool = False
    cgroup: Path | None = None
    file_bytes: int | None = None
    part_bytes: int | None = None


def run(task: Task) -> None:
    """Do the task; ends the process."""
    log = os.open(task.folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(task.environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background ignores it
    if task.cgroup:
        task.cgroup.write_text(str(os.getpid()))
    if task.file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task.file_bytes, task.file_bytes))
    if task.part_bytes:
        s3_transfer.PART_BYTES = s3_transfer.ONE_REQUEST_BYTES = s3.ONE_REQUEST_BYTES = task.part_bytes
    _hurry()
    trace = Trace(task.folder / "passages", task.fault)
    trace.stores()
    trace.programs(task.pause)
    if task.other_device:
        _change_device()
    main(list(task.arguments))


def _hurry() -> None:
    """Make checkpoints come at every step, whatever is being written, and renewed credentials be looked for often."""
    kubesae.train.Limits = functools.partial(kubesae.train.Limits, interval=0.0)  # type: ignore[assignment, misc]
    kubesae.train.passes.Background.busy = False  # type: ignore[assignment, method-assign]
    s3_connection.REFRESH_INTERVAL = 0.5


def _change_device() -> None:
    forward = ResidentEngine.forward

    def other(self: ResidentEngine, *arguments: Any, **options: Any) -> dict[int, torch.Tensor]:
        return {layer: output + 0.125 for layer, output in forward(self, *arguments, **options).items()}

    ResidentEngine.forward = other  # type: ignore[method-assign]


class Trace:
    """Notes every passage of a point, and does to the process what the fault says."""

    def __init__(self, file: Path, fault: Fault | None) -> None:
        self._file = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._fault = fault
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._writing = threading.local()

    def passes(self, point: str, delay: float = 0.0) -> None:
        """Note a passage; `delay`: seconds until the fault's action, if it is its turn."""
        with self._lock:
            self._counts[point] += 1
            os.write(self._file, f"{point}\n".encode())
            if self._fault and (self._fault.point, self._fault.passage) == (point, self._counts[point]):
                if delay:
                    threading.Timer(delay, _ACTIONS[self._fault.action]).start()
                else:
                    _ACTIONS[self._fault.action]()

    def stores(self) -> None:
        """Trace what is written to stores."""
        for store in (LocalStore, S3Store):
            for method in ("put", "create", "put_file"):
                setattr(store, method, self._write(getattr(store, method), remote=store is S3Store))
            setattr(store, "delete", self._delete(store.delete))  # noqa: B010 - as above
        request = s3_connection.S3Connection.request

        async def send(connection: Any, method: str, arguments: dict[str, Any]) -> Any:
            if method in _PARTS:
                self.passes(_PARTS[method], _LONGEST_REQUEST)
            return await request(connection, method, arguments)

        s3_connection.S3Connection.request = send  # type: ignore[method-assign]
        fsync = os.fsync

        def traced(descriptor: int) -> None:
            """Between the last byte of a local file and its publication."""
            name, self._writing.name = getattr(self._writing, "name", None), None
            if name:
                self.passes(f"in {name}")
            fsync(descriptor)

        os.fsync = traced

    def _write(self, original: Callable[..., Any], *, remote: bool) -> Callable[..., Any]:
        def write(store: Any, key: str, *arguments: Any, **options: Any) -> Any:
            name = _object(key)
            if name is None:
                return original(store, key, *arguments, **options)
            self.passes(f"before {name}")
            if remote:  # somewhere in the request, before or after the server has got it
                self.passes(f"in {name}", random.Random(f"{key} {self._fault}").uniform(0, _LONGEST_REQUEST))
            else:
                self._writing.name = name
            result = original(store, key, *arguments, **options)
            self.passes(f"after {name}")
            return result

        return write

    def _delete(self, original: Callable[..., None]) -> Callable[..., None]:
        def delete(store: Any, key: str) -> None:
            original(store, key)
            if _object(key):
                self.passes("deletion")

        return delete

    def programs(self, pause: float) -> None:
        """Trace forward passes, tokenisation, steps of training and counting."""
        modules = [0]

        def module_done(*_: object) -> None:
            modules[0] += 1
            if modules[0] == _MODULE_OF_A_PASS:
                self.passes("in forward")
                time.sleep(pause)

        def begin(original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(*arguments: Any, **options: Any) -> Any:
                modules[0] = 0
                return original(*arguments, **options)

            return forward

        def traced(original: Callable[..., Any], point: str) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                self.passes(point)
                time.sleep(pause)
                return original(*arguments, **options)

            return call

        register_module_forward_hook(module_done)
        ResidentEngine.forward = begin(ResidentEngine.forward)  # type: ignore[method-assign]
        Tokenizer.encode = traced(Tokenizer.encode, "tokenise")  # type: ignore[method-assign]
        Learner.step = traced(Learner.step, "step")  # type: ignore[method-assign]
        Statistics.add = traced(Statistics.add, "count")  # type: ignore[method-assign]


def _object(key: str) -> str | None:
    for pattern, name in _OBJECTS.items():
        if match := re.fullmatch(pattern, key):
            return name.format(*match.groups())
    return None


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _eat_memory() -> None:
    """Take memory until the kernel ends this."""
    eaten = []
    while True:
        eaten.append(ctypes.create_string_buffer(b"x" * (1 << 20)))


_ACTIONS: dict[str, Callable[[], None]] = {"kill": _kill, "stop": _stop, "eat": _eat_memory}
