"""dictionary_learning, in an environment of its own, loads SAEs and saves SAEs: see `tasks.py`."""

import json
from pathlib import Path

import torch
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.utils import load_dictionary
from tasks import run

CLASSES = {
    "AutoEncoder": (AutoEncoder, {}),
    "AutoEncoderNew": (AutoEncoderNew, {}),
    "AutoEncoderTopK": (AutoEncoderTopK, {"k": 8}),
    "BatchTopKSAE": (BatchTopKSAE, {"k": 8}),
    "MatryoshkaBatchTopKSAE": (MatryoshkaBatchTopKSAE, {"k": 8, "group_sizes": [10, 30, 88]}),
    "JumpReluAutoEncoder": (JumpReluAutoEncoder, {}),
    "GatedAutoEncoder": (GatedAutoEncoder, {}),
}


def use(sae, x):
    f = sae.encode(x)
    return f, sae.decode(f)


def load(folder, x):
    return use(load_dictionary(folder, "cpu")[0], x)


def save(folder, kind, fill, x):
    sae_class, fields = CLASSES[kind]
    sae = sae_class(x.shape[1], 4 * x.shape[1], **fields)
    fill(sae)
    if kind in {"BatchTopKSAE", "MatryoshkaBatchTopKSAE"}:
        sae.threshold.fill_(0.7)
    f, x_hat = use(sae, x)
    Path(folder).mkdir()
    torch.save(sae.state_dict(), f"{folder}/ae.pt")  # trainers save a plain dict of it; this has the metadata too
    trainer = {"dict_class": kind} | {name: value for name, value in fields.items() if name == "k"}
    Path(folder, "config.json").write_text(json.dumps({"trainer": trainer}))
    decoder = getattr(sae, "W_dec", None)
    return f, x_hat, (sae.decoder.weight.T if decoder is None else decoder).norm(dim=1)


run(load, save)
