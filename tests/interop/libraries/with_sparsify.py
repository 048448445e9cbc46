"""sparsify, in an environment of its own, loads SAEs and saves SAEs: see `tasks.py`."""

import torch
from sparsify import SparseCoder
from sparsify.config import SparseCoderConfig
from tasks import run


def use(sae, x):
    values, features, _ = sae.encode(x)
    f = torch.zeros(len(x), sae.num_latents).scatter_(1, features, values)
    return f, sae(x).sae_out


def load(folder, x):
    return use(SparseCoder.load_from_disk(folder), x)


def save(folder, kind, fill, x):
    fields = {"num_latents": 4 * x.shape[1]} if kind == "latents" else {"expansion_factor": 4}
    sae = SparseCoder(x.shape[1], SparseCoderConfig(k=8, **fields))
    fill(sae)
    if kind == "unit":
        sae.set_decoder_norm_to_unit_norm()
    sae.save_to_disk(folder)
    return (*use(sae, x), sae.W_dec.norm(dim=1))


run(load, save)
