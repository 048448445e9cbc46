"""What programs of other libraries are asked to do: a JSON list of tasks, whose results are .npz files.

    python with_sae_lens.py tasks.json

{"do": "load", "folder": ...} loads an SAE; {"do": "save", "folder": ..., "kind": ...} makes one with random weights and
saves it. Either uses it on the rows of `acts` (.npy) and writes features and reconstruction to `out` (.npz).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch


def fill(sae):
    """Give every parameter random values: decoder rows of all lengths, thresholds on both sides of 0."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in sae.named_parameters():
        scale = 0.3 if parameter.dim() > 1 or "r_mag" in name else 1.0
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def run(load, save):
    """Do the tasks of the file that the command line names."""
    for task in json.loads(Path(sys.argv[1]).read_text()):
        x = torch.from_numpy(np.load(task["acts"]))
        if task["do"] == "load":
            f, x_hat = load(task["folder"], x)
            norms = torch.ones(f.shape[1])
        else:
            f, x_hat, norms = save(task["folder"], task["kind"], fill, x)
        np.savez(task["out"], f=f.numpy(), x_hat=x_hat.numpy(), norms=norms.numpy())
