"""dictionary_learning trains: its trainers with their defaults, warm-up and decay as long in proportion as ours."""

import contextlib

import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.top_k import TopKTrainer
from steps import Trained, serve_training

KINDS = {"topk": TopKTrainer, "batchtopk": BatchTopKTrainer}


def build(architecture: str, d: int, f: int, k: int, batch: int, steps: int, variant: str) -> Trained:
    """Begin a training; return it."""
    del batch
    trainer = KINDS[architecture](
        steps=steps,
        activation_dim=d,
        dict_size=f,
        k=k,
        layer=0,
        lm_name="planted",
        warmup_steps=max(1, steps // 20),
        decay_start=steps * 4 // 5,
        seed=0,
        device="cpu",
    )
    fast = variant == "bfloat16"

    def cast() -> contextlib.AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if fast else contextlib.nullcontext()

    def step(number: int, x: torch.Tensor) -> None:
        with cast():
            trainer.update(number, x)

    def apply(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = trainer.ae.encode(x, use_threshold=False)
        return features, trainer.ae.decode(features)

    return Trained(step, apply, lambda: trainer.ae.decoder.weight.T)


serve_training(build)
