"""sparsify trains: its SparseCoder in its trainer's order of calls, with each of its optimisers at its own rate."""

import contextlib
from types import SimpleNamespace

import torch
from schedulefree import ScheduleFreeWrapper
from sparsify import SparseCoder, SparseCoderConfig
from sparsify.sign_sgd import SignSGD
from steps import Trained, serve_training
from transformers import get_linear_schedule_with_warmup


def build(architecture: str, d: int, f: int, k: int, batch: int, steps: int, variant: str) -> Trained:
    """Begin a training; return it."""
    assert architecture == "topk"
    optimiser_name, dtype = variant.split("-")
    coder = SparseCoder(d, SparseCoderConfig(num_latents=f, k=k), "cpu", dtype=torch.float32)
    if optimiser_name == "adam":
        optimiser = torch.optim.Adam(coder.parameters(), lr=2e-4 / (f / 2**14) ** 0.5)
        schedule = get_linear_schedule_with_warmup(optimiser, max(1, steps // 20), steps)
    else:
        optimiser = ScheduleFreeWrapper(
            SignSGD([{"params": list(coder.parameters()), "lr": 5e-3 / (f / 2**14) ** 0.5}]), momentum=0.95
        )
        optimiser.train()
        schedule = None
    since_fired = torch.zeros(f, dtype=torch.long)

    def cast() -> contextlib.AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()

    def step(number: int, x: torch.Tensor) -> None:
        if number == 0:
            coder.b_dec.data = x.mean(0)
        coder.set_decoder_norm_to_unit_norm()
        with cast():
            out = coder(x, dead_mask=since_fired > 10_000_000)
        (out.fvu + out.auxk_loss / 32).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        optimiser.zero_grad()
        if schedule is not None:
            schedule.step()
        fired = torch.zeros(f, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        since_fired.add_(batch)
        since_fired[fired] = 0

    def averaged() -> contextlib.AbstractContextManager[object]:
        """While it lasts the weights are the averaged ones, of the optimiser that averages."""
        if schedule is not None:
            return contextlib.nullcontext()
        optimiser.eval()
        return contextlib.closing(SimpleNamespace(close=optimiser.train))

    def apply(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with averaged():
            out = coder(x)
            features = torch.zeros(len(x), f).scatter_(1, out.latent_indices, out.latent_acts.float())
            return features, out.sae_out

    def decoder() -> torch.Tensor:
        with averaged():
            return coder.W_dec.detach().clone()

    return Trained(step, apply, decoder)


serve_training(build)
