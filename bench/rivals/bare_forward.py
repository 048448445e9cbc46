"""The floor under collection: the same layers over the same batches, with torch and transformers alone."""

import torch
from transformers import AutoConfig, AutoModel


def load(path: str, layers: int) -> torch.nn.Module:
    """Load the first layers of a model, without its head."""
    config = AutoConfig.from_pretrained(path, num_hidden_layers=layers)
    return AutoModel.from_pretrained(path, config=config, dtype=torch.bfloat16).eval()


@torch.inference_mode()
def forward(model: torch.nn.Module, ids_NT: torch.Tensor, batch: int) -> None:
    """Run the contexts through the model and forget what comes out."""
    for ids_BT in ids_NT.split(batch):
        model(input_ids=ids_BT, use_cache=False)
