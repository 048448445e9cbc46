"""nnsight captures: a trace that saves one layer's output and stops there, and each batch saved as safetensors."""

from pathlib import Path

import torch
from capture import Capture, serve_capture
from nnsight import TransformersModel
from safetensors.torch import load_file, save_file


def load(model: str, layer: int, _context: int, batch: int, dtype: str) -> Capture:
    """Load the model."""
    traced = TransformersModel(model, task="text-generation", dtype=getattr(torch, dtype), dispatch=True)

    def write(ids_NT: torch.Tensor, folder: Path) -> None:
        for number, ids_BT in enumerate(ids_NT.split(batch)):
            with traced.trace(ids_BT) as tracer:
                output_BTD = traced.model.layers[layer].output.save()
                tracer.stop()
            save_file({"output": output_BTD}, folder / f"{number:04d}.safetensors")

    def read(folder: Path) -> torch.Tensor:
        return torch.cat([load_file(file)["output"] for file in sorted(folder.iterdir())])

    return Capture(write, read)


serve_capture(load)
