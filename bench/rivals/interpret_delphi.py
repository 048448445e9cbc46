"""delphi's latent cache from given activations: encode, keep what is not zero in memory, write its splits."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from delphi.latents import LatentCache
from delphi.sparse_coders.load_sparsify import sae_dense_latents
from serve import serve
from sparsify import SparseCoder
from torch import nn

HOOK, CONTEXTS, SPLITS = "layer", 8, 5
STATE = {}


class Given(nn.Module):
    """In place of a model: the activations of the contexts in their order, so that a forward pass costs nothing."""

    device = torch.device("cpu")

    def __init__(self, acts: np.ndarray) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.acts, self.at = acts, 0

    def forward(self, ids: torch.Tensor) -> None:
        """Pass the next activations through `layer`."""
        self.layer(torch.from_numpy(np.array(self.acts[self.at : self.at + len(ids)])))
        self.at += len(ids)


def begin(sae: str, contexts: str, activations: str, threads: int) -> dict:
    """Load all."""
    torch.set_num_threads(threads)
    STATE.update(
        sae=SparseCoder.load_from_disk(sae, device="cpu"),
        tokens=torch.from_numpy(np.load(contexts).astype(np.int64)),
        acts=np.load(activations, mmap_mode="r"),
    )
    return {}


def run(folder: str) -> dict:
    """Make its cache, and write it into a folder."""
    sae, tokens = STATE["sae"], STATE["tokens"]
    before = time.perf_counter(), time.process_time()
    cache = LatentCache(Given(STATE["acts"]), {HOOK: lambda x: sae_dense_latents(x, sae)}, batch_size=CONTEXTS)
    cache.run(tokens.numel(), tokens)
    cache.save_splits(SPLITS, Path(folder))
    seconds, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
    found = SimpleNamespace(files=sorted(Path(folder, HOOK).iterdir()))
    return {"seconds": seconds, "cpu": cpu, "bytes": sum(file.stat().st_size for file in found.files)}


serve(begin, run)
