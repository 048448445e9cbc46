"""Measure this machine: products, memory, disk, a store, and a model with random weights. At most a minute.

    kubesae plan --calibrate experiment.yaml

Each measurement has a few seconds. On a GPU everything runs there; without one, on the CPU with all cores.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubesae.limits import memory
from kubesae.plan.calibration import Calibration
from kubesae.plan.measure_model import measure_model, measure_startup
from kubesae.plan.prices import GB
from kubesae.store import open_store
from kubesae.store.store import PROBE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kubesae.plan.known import ModelConfig
    from kubesae.plan.work import Work

_SECONDS = 3.0
_FILE_BYTES = 512 << 20
_PROBE_BYTES = 64 << 20
_PIECE = 8 << 20
_SIDE = {"cpu": 4096, "cuda": 8192}


def calibrate(
    work: Work | None, source: ModelConfig | None, folder: Path, workers: int, say: Callable[[str], None]
) -> Calibration:
    """Measure everything and return it.

    Args:
        work: an experiment, whose model and store are measured too.
        source: the config of that model.
        folder: on the disk that would hold weights.
        workers: processes that would collect here at the same time.
        say: told what was found, as it is.

    Raises:
        UserError, StoreError: the experiment's store refuses or fails.

    """
    import torch  # noqa: PLC0415 - seconds to import

    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = _rates(device, folder, say)
    if work is not None:
        up, down = store_gb_s(work.experiment.data)
        say(f"store: {up:,.2f} GB/s up, {down:,.2f} GB/s down")
        found |= {"upload_gb_s": up, "download_gb_s": down}
    found["startup_seconds"] = measure_startup(workers)
    say(f"start of a worker: {found['startup_seconds']:.1f} s")
    if work is not None and source is not None:
        model = found["model"] = measure_model(work, source, workers, device)
        if model is None:
            say("no model: one layer takes too much of this machine's memory to be run")
        else:
            say(f"{model.name}: {model.tokens_per_second:,.0f} tokens/s through {model.layers} layers")
    return Calibration(
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        device=_device_name(device),
        gpus=max(1, torch.cuda.device_count()),
        memory_gb=(torch.cuda.get_device_properties(0).total_memory if device == "cuda" else memory()[0]) / GB,
        host_memory_gb=memory()[0] / GB,
        disk_gb=shutil.disk_usage(folder).free / GB,
        **found,
    )


def _rates(device: str, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Return how fast the machine multiplies, copies and reads."""
    tflops = matmul_tflops(device)
    say(f"bfloat16 products: {tflops:,.2f} TFLOP/s")
    bandwidth = memory_gb_s(device)
    say(f"memory: {bandwidth:,.1f} GB/s")
    disk = disk_gb_s(folder)
    say(f"disk, not cached: {disk:,.2f} GB/s")
    return {
        "matmul_tflops": tflops,
        "memory_gb_s": bandwidth,
        "host_to_gpu_gb_s": host_to_gpu_gb_s() if device == "cuda" else bandwidth,
        "disk_gb_s": disk,
    }


def repeated(run: Callable[[], object], seconds: float = _SECONDS) -> float:
    """Return the shortest time of a run, of as many as go into `seconds`, the first not counted."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def matmul_tflops(device: str) -> float:
    """Return the rate of a large bfloat16 product, 10^12 FLOP a second."""
    import torch  # noqa: PLC0415

    side = _SIDE[device]
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / repeated(lambda: _finished(left @ right)) / 1e12


def memory_gb_s(device: str) -> float:
    """Return GB a second, read and written, of copying 256 MiB."""
    import torch  # noqa: PLC0415

    source = torch.ones(64 << 20, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / repeated(lambda: _finished(target.copy_(source))) / GB


def host_to_gpu_gb_s() -> float:
    """Return GB a second from pinned memory to the first GPU."""
    import torch  # noqa: PLC0415

    source = torch.ones(64 << 20, pin_memory=True)
    target = torch.empty_like(source, device="cuda")
    return source.nbytes / repeated(lambda: _finished(target.copy_(source))) / GB


def _finished(tensor: Any) -> None:
    import torch  # noqa: PLC0415

    if tensor.device.type == "cuda":
        torch.cuda.synchronize()


def disk_gb_s(folder: Path) -> float:
    """Return GB a second of reading a file of 512 MiB past the page cache, as the streamed engine reads weights.

    What lies below (a hypervisor, a network) may keep it all the same: nothing here can ask that to forget.
    """
    from kubesae.model.weight_readers import Disk, page_buffer  # noqa: PLC0415 - imports torch

    size = min(_FILE_BYTES, shutil.disk_usage(folder).free // 4)
    path = folder / f".kubesae-calibration-{secrets.token_hex(6)}"
    try:
        with path.open("wb", buffering=0) as file:
            piece = memoryview(secrets.token_bytes(_PIECE))
            for _ in range(max(1, size // _PIECE)):
                file.write(piece)
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size, disk = path.stat().st_size, Disk()
        target = memoryview(page_buffer(size).numpy())
        began = time.perf_counter()
        disk.read([(path, 0, target)])
        return size / (time.perf_counter() - began) / GB
    finally:
        path.unlink(missing_ok=True)


def store_gb_s(url: str) -> tuple[float, float]:
    """Return GB a second up and down of one object of 64 MiB, which is deleted again.

    Raises:
        UserError, StoreError: what the store raises.

    """
    store = open_store(url)
    key, data = f"{PROBE_PREFIX}{secrets.token_hex(8)}", secrets.token_bytes(_PROBE_BYTES)
    try:
        began = time.perf_counter()
        store.put(key, data)
        middle = time.perf_counter()
        store.read_into(key, 0, memoryview(bytearray(_PROBE_BYTES)))
        ended = time.perf_counter()
    finally:
        store.delete(key)
    return _PROBE_BYTES / (middle - began) / GB, _PROBE_BYTES / (ended - middle) / GB


def _device_name(device: str) -> str:
    import torch  # noqa: PLC0415

    if device == "cuda":
        return str(torch.cuda.get_device_name(0))
    return f"{len(os.sched_getaffinity(0))} CPU cores, {torch.backends.cpu.get_cpu_capability()}"
