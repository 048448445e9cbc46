"""SAEDashboard makes the data of its pages for some features, from activations that are in its cache already."""

import time
from pathlib import Path

import numpy as np
import torch
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE, HookedSAETransformer
from safetensors import safe_open
from serve import serve
from transformer_lens import HookedTransformerConfig

# Its own choice for Neuronpedia is 128 features at a time; 64 contexts are its default.
FEATURES, CONTEXTS = 128, 64
STATE = {}


def begin(model: str, sae: str, contexts: str, activations: str, hook: str, cache: str, threads: int) -> dict:
    """Load all; activations [contexts, T, D] go into the cache that its runner reads in place of a forward pass."""
    torch.set_num_threads(threads)
    acts = np.load(activations, mmap_mode="r")
    Path(cache).mkdir()
    for number, first in enumerate(range(0, len(acts), CONTEXTS)):
        batch = torch.from_numpy(np.array(acts[first : first + CONTEXTS]))
        torch.save({hook: batch}, Path(cache) / f"model_activations_{number}.pt")
    opened = SAE.load_from_disk(sae, device="cpu")
    opened.cfg.rescale_acts_by_decoder_norm = True  # its runner folds the norms, which are 1, and asks for this first
    STATE.update(
        model=with_unembedding(model, int(hook.split(".")[1]), acts.shape[1:]),
        sae=opened,
        tokens=torch.from_numpy(np.load(contexts).astype(np.int64)),
        hook=hook,
        cache=Path(cache),
    )
    return {"width": STATE["sae"].cfg.d_sae}


def with_unembedding(folder: str, layer: int, shape: tuple[int, ...]) -> HookedSAETransformer:
    """Return a model with the hooks that its runner looks for and the real unembedding; no pass runs through it."""
    weights = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            weights |= {name: opened.get_tensor(name) for name in opened.keys() if "embed_tokens" in name}  # noqa: SIM118
    (embedding_VD,) = weights.values()  # tied
    context, width = shape
    sizes = {"n_heads": 1, "d_head": 64, "d_mlp": 64, "act_fn": "relu", "n_ctx": context, "d_model": width}
    model = HookedSAETransformer(HookedTransformerConfig(n_layers=layer + 1, d_vocab=len(embedding_VD), **sizes))
    model.unembed.W_U.data = embedding_VD.float().T.contiguous()
    return model


def run(first: int, count: int) -> dict:
    """Make the data of `count` features from `first` on."""
    config = SaeVisConfig(
        hook_point=STATE["hook"],
        features=list(range(first, first + count)),
        minibatch_size_features=FEATURES,
        minibatch_size_tokens=CONTEXTS,
        cache_dir=STATE["cache"],
    )
    before = time.perf_counter(), time.process_time()
    found = SaeVisRunner(config).run(encoder=STATE["sae"], model=STATE["model"], tokens=STATE["tokens"])
    seconds, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
    return {"seconds": seconds, "cpu": cpu, "features": len(found.feature_data_dict)}


serve(begin, run)
