"""SAELens, in an environment of its own, loads SAEs and saves SAEs: see `tasks.py`."""

import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedSAE,
    GatedSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)
from tasks import run

KINDS = {
    "standard": (StandardSAE, StandardSAEConfig, {}),
    "standard-b_dec-stays": (StandardSAE, StandardSAEConfig, {"apply_b_dec_to_input": False}),
    "topk": (TopKSAE, TopKSAEConfig, {"k": 8}),
    "topk-rescaled": (TopKSAE, TopKSAEConfig, {"k": 8, "rescale_acts_by_decoder_norm": True}),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    "jumprelu-b_dec-stays": (JumpReLUSAE, JumpReLUSAEConfig, {"apply_b_dec_to_input": False}),
    "gated": (GatedSAE, GatedSAEConfig, {}),
    "gated-b_dec-stays": (GatedSAE, GatedSAEConfig, {"apply_b_dec_to_input": False}),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, {"k": 8}),
}


def use(sae, x):
    f = sae.encode(x)
    return f, sae.decode(f)


def load(folder, x):
    return use(SAE.load_from_disk(folder), x)


def save(folder, kind, fill, x):
    sae_class, config_class, fields = KINDS[kind]
    sae = sae_class(config_class(d_in=x.shape[1], d_sae=4 * x.shape[1], **fields))
    fill(sae)
    if kind == "batchtopk":
        sae.topk_threshold = torch.tensor(0.7, dtype=torch.double)
        sae.save_inference_model(folder)
        sae = SAE.load_from_disk(folder)
    else:
        sae.save_model(folder)
    return (*use(sae, x), sae.W_dec.norm(dim=1))


run(load, save)
