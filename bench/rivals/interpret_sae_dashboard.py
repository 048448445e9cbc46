"""SAEDashboard makes the data of its pages for some features, from activations that are in its cache already."""

import time
from pathlib import Path

import numpy as np
import torch
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE
from serve import serve
from transformers import AutoModelForCausalLM, AutoTokenizer

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
    STATE.update(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        tokenizer=AutoTokenizer.from_pretrained(model),
        sae=SAE.load_from_disk(sae, device="cpu"),
        tokens=torch.from_numpy(np.load(contexts).astype(np.int64)),
        hook=hook,
        cache=Path(cache),
    )
    return {"width": STATE["sae"].cfg.d_sae}


def run(first: int, count: int) -> dict:
    """Make the data of `count` features from `first` on."""
    config = SaeVisConfig(
        hook_point=STATE["hook"],
        features=list(range(first, first + count)),
        minibatch_size_features=FEATURES,
        minibatch_size_tokens=CONTEXTS,
        cache_dir=STATE["cache"],
        use_huggingface=True,
    )
    before = time.perf_counter(), time.process_time()
    found = SaeVisRunner(config).run(
        encoder=STATE["sae"], model=STATE["model"], tokens=STATE["tokens"], tokenizer=STATE["tokenizer"]
    )
    seconds, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
    return {"seconds": seconds, "cpu": cpu, "features": len(found.feature_data_dict)}


serve(begin, run)
