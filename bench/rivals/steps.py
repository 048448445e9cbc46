"""How a rival trains for us: steps on given batches, processor seconds of one thread, and FVU on held-out rows."""

import time
from collections.abc import Callable

import numpy as np
import torch
from serve import serve

# one training step on a batch [B, d], and the reconstruction of rows [N, d]; both from 0 on
Trained = tuple[Callable[[int, torch.Tensor], None], Callable[[torch.Tensor], torch.Tensor]]


def serve_training(build: Callable[..., Trained]) -> None:
    """Answer requests; `build(architecture, d, f, k, batch, steps, variant)` begins a training."""
    torch.set_num_threads(1)
    state = {}

    def begin(data: str, steps: int, **case: object) -> dict[str, object]:
        batches = np.load(data, mmap_mode="r")
        torch.manual_seed(0)
        made = build(**case, d=batches.shape[2], batch=batches.shape[1], steps=steps)
        state.update(batches=batches, at=0, step=made[0], reconstruct=made[1])
        return {}

    def step(count: int) -> dict[str, object]:
        rows, spent = 0, 0.0
        for _ in range(count):
            x = torch.from_numpy(np.array(state["batches"][state["at"] % (len(state["batches"]) - 1)]))
            before = time.process_time()
            state["step"](state["at"], x)
            spent += time.process_time() - before
            state["at"] += 1
            rows += len(x)
        return {"microseconds": 1e6 * spent / rows}

    def evaluate() -> dict[str, object]:
        x = torch.from_numpy(np.array(state["batches"][-1]))  # no step has seen the last batch
        with torch.no_grad():
            left = (x - state["reconstruct"](x).float()).double().square().sum()
        return {"fvu": float(left / (x - x.mean(0)).double().square().sum())}

    serve(begin, step, evaluate)
