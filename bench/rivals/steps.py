"""How a rival trains for us: steps on given batches, processor seconds of one thread, and FVU on held-out rows."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from serve import serve


@dataclass
class Trained:
    """A training: its step on a batch [B, d], by number; features [N, F] of rows and their reconstruction; its decoder.

    Rows of the decoder [F, d] are the features' directions.
    """

    step: Callable[[int, torch.Tensor], None]
    apply: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    decoder: Callable[[], torch.Tensor]


def serve_training(build: Callable[..., Trained]) -> None:
    """Answer requests; `build(architecture, d, f, k, batch, steps, variant)` begins a training."""
    torch.set_num_threads(1)
    state = {}

    def begin(data: str, steps: int, held: int = 1, seed: int = 0, **case: object) -> dict[str, object]:
        """Begin with the batches of a file; the last `held` are for `evaluate`."""
        batches = np.load(data, mmap_mode="r")
        torch.manual_seed(seed)
        trained = build(**case, d=batches.shape[2], batch=batches.shape[1], steps=steps)
        state.update(batches=batches, held=held, at=0, trained=trained)
        return {}

    def step(count: int) -> dict[str, object]:
        rows, spent = 0, 0.0
        for _ in range(count):
            number = state["at"] % (len(state["batches"]) - state["held"])
            x = torch.from_numpy(np.array(state["batches"][number]))
            before = time.process_time()
            state["trained"].step(state["at"], x)
            spent += time.process_time() - before
            state["at"] += 1
            rows += len(x)
        return {"microseconds": 1e6 * spent / rows}

    def evaluate(directions: str | None = None) -> dict[str, object]:
        """Return FVU and L0 of rows that no step has seen, and the share of features active on none of them.

        With a file of directions [P, d] also the share of these that a feature has, by a cosine above 0.9.
        """
        held = np.array(state["batches"][-state["held"] :])
        x = torch.from_numpy(held.reshape(-1, held.shape[2]))
        with torch.no_grad():
            left, active = 0.0, torch.zeros((), dtype=torch.int64)
            for rows in x.split(len(held[0])):
                features, reconstruction = state["trained"].apply(rows)
                left += float((rows - reconstruction.float()).double().square().sum())
                active = active + (features > 0).sum(0)
            found = {
                "fvu": left / float((x - x.double().mean(0)).square().sum()),
                "l0": float(active.sum()) / len(x),
                "dead": float((active == 0).double().mean()),
            }
            if directions is not None:
                W = torch.nn.functional.normalize(state["trained"].decoder().float(), dim=1)
                cosines = torch.from_numpy(np.load(directions)) @ W.T
                found["recovered"] = float((cosines.amax(1) > 0.9).double().mean())
        return found

    serve(begin, step, evaluate)
