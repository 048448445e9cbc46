"""SAELens captures: its CacheActivationsRunner, into a dataset of Arrow files, in float32 (they know no bfloat16).

The model is the one of transformers in SAELens' wrapper: its own classes know models by name, not by folder.
"""

from collections.abc import Iterator
from pathlib import Path

import datasets
import torch
from capture import Capture, serve_capture
from sae_lens import CacheActivationsRunner, CacheActivationsRunnerConfig
from transformers import AutoConfig

datasets.disable_progress_bars()


class Contexts:
    """A tokenised dataset whose rows are those of the round at hand: the runner begins it anew at its end."""

    def __init__(self, context: int) -> None:
        """Begin with a context that only shows the runner what rows are like."""
        self.rows = torch.zeros(1, context, dtype=torch.int64)

    def __iter__(self) -> Iterator[dict[str, object]]:
        """Give the rows."""
        return ({"input_ids": row} for row in self.rows.numpy())


def load(model: str, layer: int, context: int, batch: int, dtype: str) -> Capture:
    """Load the model and the runner; nothing is shuffled, or prepended."""
    d_model = AutoConfig.from_pretrained(model).hidden_size
    contexts = Contexts(context)
    config = CacheActivationsRunnerConfig(
        dataset_path="given",
        model_name=model,
        model_class_name="AutoModelForCausalLM",
        model_from_pretrained_kwargs={"dtype": dtype},
        hook_name=f"model.layers.{layer}",
        d_in=d_model,
        context_size=context,
        model_batch_size=batch,
        training_tokens=context,
        new_cached_activations_path="given",
        shuffle=False,
        prepend_bos=False,
        device="cpu",
    )
    runner = CacheActivationsRunner(config, override_dataset=contexts)

    def write(ids_NT: torch.Tensor, folder: Path) -> None:
        contexts.rows = ids_NT
        config.training_tokens = ids_NT.numel()
        config.buffer_size_gb = (ids_NT.numel() + 0.5) * config.bytes_per_token / 1e9  # all at once, and no more
        config.new_cached_activations_path = str(folder)
        runner.run()

    def read(folder: Path) -> torch.Tensor:
        return datasets.load_from_disk(folder).with_format("torch")[:][config.hook_name]

    return Capture(write, read)


serve_capture(load)
