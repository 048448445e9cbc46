"""SAELens trains: its SAETrainer with its defaults, in float32 or with its bfloat16 autocast."""

import torch
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.sae import TrainStepInput
from sae_lens.training.sae_trainer import SAETrainer
from steps import Trained, serve_training

KINDS = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
}


def build(architecture: str, d: int, f: int, k: int, batch: int, steps: int, variant: str) -> Trained:
    """Begin a training; return it."""
    sae_class, config_class = KINDS[architecture]
    sae = sae_class(config_class(d_in=d, d_sae=f, k=k))
    config = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr_end=3e-5,  # must be given, and is of no effect with a constant rate
        autocast=variant == "bfloat16",
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(config, sae, iter(()))

    def step(_: int, x: torch.Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    def apply(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sae.train()  # as in training: thresholds for use are another matter
        given = TrainStepInput(
            sae_in=x,
            coefficients={},
            dead_neuron_mask=None,
            n_training_steps=trainer.n_training_steps,
            is_logging_step=False,
        )
        out = sae.training_forward_pass(given)
        return out.feature_acts, out.sae_out

    return Trained(step, apply, lambda: sae.W_dec)


serve_training(build)
