"""The floor under collection: the same layers over the same batches, by torch and transformers; nothing is kept."""

from pathlib import Path

import torch
from capture import Capture, serve_capture
from transformers import AutoConfig, AutoModel
from transformers.utils import logging


def load(model: str, layer: int, _context: int, batch: int, dtype: str) -> Capture:
    """Load the layers that are needed, without the head."""
    logging.set_verbosity_error()  # each tensor of a later layer would be reported as unexpected
    config = AutoConfig.from_pretrained(model, num_hidden_layers=layer + 1)
    bare = AutoModel.from_pretrained(model, config=config, dtype=dtype).eval()

    def write(ids_NT: torch.Tensor, _folder: Path) -> None:
        for ids_BT in ids_NT.split(batch):
            bare(input_ids=ids_BT, use_cache=False)

    return Capture(write)


serve_capture(load)
