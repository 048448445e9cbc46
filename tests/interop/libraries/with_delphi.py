"""delphi, in an environment of its own, opens a cache of latents: `python with_delphi.py latents tokenizer.json out`.

What each latent has goes to <out>.npz, and what delphi makes of it to explain it to <out>.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from delphi.config import ConstructorConfig, SamplerConfig
from delphi.latents import LatentDataset
from transformers import PreTrainedTokenizerFast

folder, definition, out = sys.argv[1:]
dataset = LatentDataset(
    folder,
    SamplerConfig(n_examples_train=4, n_examples_test=4, n_quantiles=2),
    ConstructorConfig(min_examples=1, n_non_activating=2),
    tokenizer=PreTrainedTokenizerFast(tokenizer_file=definition),
)
latents, locations, activations = [], [], []
for buffer in dataset.buffers:
    found = buffer.load_data_per_latent()
    latents += found[0].tolist()
    locations += found[1]
    activations += found[2]
np.savez(
    f"{out}.npz",
    tokens=dataset.tokens.numpy(),
    counts=np.array([len(one) for one in activations]),
    latents=np.array(latents),
    locations=torch.cat(locations).numpy(),
    activations=torch.cat(activations).numpy(),
)
records = {
    record.latent.latent_index: {
        "module": record.latent.module_name,
        "max": record.max_activation,
        "examples": [[example.tokens.tolist(), example.activations.tolist()] for example in record.examples],
        "not_active": len(record.not_active),
    }
    for record in dataset
}
selected = LatentDataset(
    folder,
    SamplerConfig(),
    ConstructorConfig(),
    tokenizer=dataset.tokenizer,
    modules=dataset.modules,
    latents={dataset.modules[0]: torch.tensor([3, 9])},
)
chosen = [latent for buffer in selected.buffers for latent in buffer.load_data_per_latent()[0].tolist()]
answer = {"records": records, "config": dataset.cache_config, "selected": chosen}
Path(f"{out}.json").write_text(json.dumps(answer))
