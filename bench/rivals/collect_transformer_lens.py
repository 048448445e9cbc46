"""TransformerLens captures: run_with_cache of one hook, stopped after its layer, each batch saved as safetensors."""

from pathlib import Path

import torch
from capture import Capture, serve_capture
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge


def load(model: str, layer: int, _context: int, batch: int, dtype: str) -> Capture:
    """Load the model."""
    bridge = TransformerBridge.boot_transformers(model, device="cpu", dtype=getattr(torch, dtype))
    hook = f"blocks.{layer}.hook_resid_post"

    def write(ids_NT: torch.Tensor, folder: Path) -> None:
        for number, ids_BT in enumerate(ids_NT.split(batch)):
            _, cache = bridge.run_with_cache(ids_BT, names_filter=hook, stop_at_layer=layer + 1)
            save_file({hook: cache[hook]}, folder / f"{number:04d}.safetensors")

    def read(folder: Path) -> torch.Tensor:
        return torch.cat([load_file(file)[hook] for file in sorted(folder.iterdir())])

    return Capture(write, read)


serve_capture(load)
