"""How a rival captures for us: contexts through a model, the output of one layer into files, and what that took."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from serve import serve


@dataclass
class Capture:
    """A loaded model: `write` captures contexts, int64 [N, T], into a folder; `read` returns that, [N, T, D]."""

    write: Callable[[torch.Tensor, Path], None]
    read: Callable[[Path], torch.Tensor] | None = None


def peak_rss() -> int:
    """Return the most bytes of memory that this process has had so far."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["VmHWM"].split()[0])


def serve_capture(load: Callable[..., Capture]) -> None:
    """Answer requests; `load(folder, layer, context, batch, dtype)` loads a model for contexts of so many tokens."""
    state = {}

    def begin(model: str, contexts: str, layer: int, batch: int, dtype: str, threads: int) -> dict[str, object]:
        """Load; `contexts` is a file of token ids, [contexts, T]."""
        torch.set_num_threads(threads)
        ids = np.load(contexts)
        state.update(ids=ids, capture=load(model, layer, ids.shape[1], batch, dtype))
        return {}

    def capture(first: int, count: int, folder: str) -> dict[str, object]:
        """Capture `count` contexts into a new folder."""
        ids_NT = torch.from_numpy(state["ids"][first : first + count].astype(np.int64))
        Path(folder).mkdir()
        before = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            state["capture"].write(ids_NT, Path(folder))
        seconds, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
        return {"seconds": seconds, "cpu": cpu, "peak": peak_rss()}

    def read(folder: str, out: str) -> dict[str, object]:
        """Write what was captured into a folder as one array, float32 [N, T, D]."""
        np.save(out, state["capture"].read(Path(folder)).float().numpy())
        return {}

    serve(begin, capture, read)
