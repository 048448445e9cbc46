"""SAEs of dictionary_learning (PyPI: dictionary-learning 0.1.0), as its `utils.load_dictionary` reads them.

    ae.pt          a state dict by torch.save; read here without unpickling (`torch_zip`)
    config.json    {"trainer": {"dict_class": ..., "k": ...}}

Classes, their tensors, and f; x_hat is f times the decoder, plus the first of the tensors. Here z = (x - first) times
the encoder, plus the second; encoder.weight is [d_sae, d_in], decoder.weight [d_in, d_sae], W_enc [d_in, d_sae], W_dec
[d_sae, d_in]:

    AutoEncoder              bias, encoder.bias, encoder.weight, decoder.weight    ReLU(z)
    AutoEncoderNew           decoder.bias, and the rest the same                   ReLU(z), but nothing is subtracted
    AutoEncoderTopK          b_dec, and the rest the same, k, threshold            the k largest of ReLU(z)
    BatchTopKSAE             the same                                              ReLU(z) where > threshold
    MatryoshkaBatchTopKSAE   b_dec, b_enc, W_enc, W_dec, k, threshold, group_sizes           ReLU(z) where > threshold
    JumpReluAutoEncoder      b_dec, b_enc, W_enc, W_dec, threshold [d_sae]         ReLU(z) where z > threshold, but
                                                                                   nothing is subtracted
    GatedAutoEncoder         decoder_bias, encoder.weight, decoder.weight, r_mag, gate_bias, mag_bias
                             ReLU(exp(r_mag) e + mag_bias) where e + gate_bias > 0, e = (x - decoder_bias) times encoder

A threshold below 0 is one that training has not reached yet: all positive features are active, as with ReLU.
Activations that were normalised for training need nothing: the trainers scale the biases back before they save.
AutoEncoder normalises its decoder when it is loaded, and fails on a row of zeros.

One threshold for all features is written as BatchTopKSAE or MatryoshkaBatchTopKSAE, others as JumpReluAutoEncoder, with
b_dec W_enc^T moved into b_enc: the same function, but where b_dec is large its rounding shows.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch

from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import parse_json_object
from kubesae.sae.formats import fold
from kubesae.sae.formats.files import positive, precision
from kubesae.sae.formats.format import Foreign, Format, Tensors, hint_of, make_config, threshold_config
from kubesae.sae.formats.torch_zip import read_torch_zip
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kubesae.sae.inference import Sae

WEIGHTS, CONFIG = "ae.pt", "config.json"
# One threshold that was folded with decoder norms of nearly 1 differs from feature to feature by rounding.
SAME_THRESHOLD = 1e-6


def refusal(sae: Sae) -> str | None:
    """Say why dictionary_learning cannot hold `sae`."""
    if dict_class(sae) == "AutoEncoder" and bool((fold.norms(sae.weights) == 0).any()):
        return "it has features with a decoder row of zeros, by which AutoEncoder.from_pretrained divides"
    return None


def dict_class(sae: Sae) -> str:
    """Return the class that holds `sae`."""
    if sae.threshold_F is None:
        return "AutoEncoder" if sae.config.k is None else "AutoEncoderTopK"
    largest = float(sae.threshold_F.max())
    if sae.config.k is None or largest - float(sae.threshold_F.min()) > SAME_THRESHOLD * largest:
        return "JumpReluAutoEncoder"
    return "BatchTopKSAE" if sae.config.prefixes is None else "MatryoshkaBatchTopKSAE"


def write(sae: Sae) -> dict[str, bytes]:
    """Return the files of `sae`."""
    kind = dict_class(sae)
    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in _state(sae, kind).items()}, buffer)
    trainer = {
        "dict_class": kind,
        "activation_dim": sae.config.d_model,
        "dict_size": sae.config.d_sae,
        "k": sae.config.k,
        "layer": sae.metadata.get("layer"),
        "lm_name": sae.metadata.get("model"),
    }
    config = {"trainer": trainer, "kubesae": hint_of(sae.config)}
    return {WEIGHTS: buffer.getvalue(), CONFIG: json.dumps(config, indent=1).encode()}


def _state(sae: Sae, kind: str) -> dict[str, Tensor]:
    weights = sae.weights
    linear = {
        "encoder.weight": weights.W_enc_FD,
        "encoder.bias": weights.b_enc_F,
        "decoder.weight": weights.W_dec_FD.T,
    }
    if kind == "AutoEncoder":
        return {"bias": weights.b_dec_D, **linear}
    plain = {"W_enc": weights.W_enc_FD.T, "b_enc": weights.b_enc_F, "W_dec": weights.W_dec_FD, "b_dec": weights.b_dec_D}
    if kind == "JumpReluAutoEncoder":
        assert sae.threshold_F is not None  # noqa: S101 - dict_class
        return plain | {"b_enc": fold.leave_b_dec(weights), "threshold": sae.threshold_F}
    threshold = torch.tensor(-1.0) if sae.threshold_F is None else sae.threshold_F.double().mean().float()
    scalars = {"k": torch.tensor(sae.config.k, dtype=torch.int), "threshold": threshold}
    if kind == "MatryoshkaBatchTopKSAE":
        sizes = [end - begin for begin, end in pairwise([0, *(sae.config.prefixes or ())])]
        return {**plain, **scalars, "group_sizes": torch.tensor(sizes)}
    return {**linear, "b_dec": weights.b_dec_D, **scalars}


@dataclass(frozen=True, slots=True)
class _Class:
    """How a class keeps its weights: in linear layers or not, b_dec under which name, whether that is subtracted."""

    act: Literal["relu", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"]
    linear: bool = True
    b_dec: str = "b_dec"
    subtracted: bool = True


CLASSES = {
    "AutoEncoder": _Class("relu", b_dec="bias"),
    "AutoEncoderNew": _Class("relu", b_dec="decoder.bias", subtracted=False),
    "AutoEncoderTopK": _Class("topk"),
    "BatchTopKSAE": _Class("batchtopk"),
    "MatryoshkaBatchTopKSAE": _Class("matryoshka", linear=False),
    "JumpReluAutoEncoder": _Class("jumprelu", linear=False, subtracted=False),
    "GatedAutoEncoder": _Class("gated", b_dec="decoder_bias"),
}


def read(files: Mapping[str, bytes], where: str) -> Foreign:
    """Read an SAE."""
    said = f"{where}/{CONFIG}"
    config = parse_json_object(files[CONFIG], said)
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    name = trainer.get("dict_class")
    if not isinstance(name, str) or name not in CLASSES:
        raise ConfigError(
            f"{said} says dict_class: {name!r}, which kubesae does not have ({', '.join(CLASSES)}). Choose another SAE."
        )
    kind, found = CLASSES[name], read_torch_zip(files[WEIGHTS], f"{where}/{WEIGHTS}")
    tensors, notes = Tensors(found, f"{where}/{WEIGHTS}"), precision(found)
    weights, threshold_F = _read_weights(tensors, kind)
    sizes = {"d_sae": len(weights.b_enc_F), "d_model": len(weights.b_dec_D)}
    if kind.act in {"topk", "batchtopk", "matryoshka"}:
        sizes["k"] = _read_k(tensors, trainer, said, sizes["d_sae"])
    if kind.act == "topk":
        tensors.drop("threshold")  # of another way to use it, which its encode() takes only when told to
        tensors.end()
        return Foreign(make_config("topk", where, **sizes), weights, None, name, notes + fold.kept_rows(weights))
    if kind.act in {"batchtopk", "matryoshka"}:
        threshold_F, more = _one_threshold(tensors.take("threshold"), sizes["d_sae"])
        notes += more
    weights, threshold_F = fold.unit_rows(weights, threshold_F)
    if kind.act in {"jumprelu", "gated"}:
        made = threshold_config(config.get("kubesae"), **sizes, where=where, otherwise=kind.act)
    elif kind.act == "matryoshka":
        made = make_config(kind.act, where, prefixes=_prefixes(tensors, sizes["d_sae"], where), **sizes)
    else:
        made = make_config(kind.act, where, **sizes)
    tensors.end()
    return Foreign(made, weights, threshold_F, name, notes)


def _read_weights(tensors: Tensors, kind: _Class) -> tuple[Weights, Tensor | None]:
    """Return weights that subtract b_dec, and the thresholds of a class that has them for each feature."""
    if kind.linear:
        d_sae, d_model = tensors.shape("encoder.weight")
        W_enc_FD = tensors.take("encoder.weight", d_sae, d_model)
        W_dec_FD = tensors.take("decoder.weight", d_model, d_sae).T.contiguous()
    else:
        d_model, d_sae = tensors.shape("W_enc")
        W_enc_FD = tensors.take("W_enc", d_model, d_sae).T.contiguous()
        W_dec_FD = tensors.take("W_dec", d_sae, d_model)
    threshold_F = None
    if kind.act == "gated":
        gates = (tensors.take(name, d_sae) for name in ("gate_bias", "r_mag", "mag_bias"))
        W_enc_FD, b_enc_F, threshold_F = fold.ungate(W_enc_FD, *gates)
    else:
        b_enc_F = tensors.take("encoder.bias" if kind.linear else "b_enc", d_sae)
    if kind.act == "jumprelu":
        threshold_F = tensors.take("threshold", d_sae).clamp_min(0)
    weights = Weights(W_enc_FD, b_enc_F, W_dec_FD, tensors.take(kind.b_dec, d_model))
    return weights if kind.subtracted else fold.subtract_b_dec(weights), threshold_F


def _read_k(tensors: Tensors, trainer: dict[str, Any], where: str, d_sae: int) -> int:
    """Return k, which both files say; the library too refuses two."""
    k = positive(trainer, "k", where, at_most=d_sae)
    stored = int(tensors.take("k")) if "k" in tensors else k
    if stored != k:
        raise DamagedError(
            f"{where} says k: {k}, and the weights beside it {stored}. Get both files again from where they were made."
        )
    return k


def _one_threshold(threshold: Tensor, d_sae: int) -> tuple[Tensor, tuple[str, ...]]:
    """Return the threshold [] for all features, [d_sae], and what to say of it."""
    note = (
        f"Its threshold is {float(threshold):.4g}: training ended before it was found, so all positive features are "
        "active, as with ReLU."
    )
    return threshold.clamp_min(0).expand(d_sae).clone(), (note,) if threshold < 0 else ()


def _prefixes(tensors: Tensors, d_sae: int, where: str) -> list[int]:
    """Return the numbers of features that reconstruct without the others."""
    sizes = tensors.take_integers("group_sizes")
    if any(size < 1 for size in sizes) or sum(sizes) != d_sae:
        raise DamagedError(
            f"{where}: group_sizes are {sizes}, not numbers of features that make {d_sae}. Get the file again from "
            "where it was made."
        )
    return list(accumulate(sizes))


FORMAT = Format(
    name="dictionary-learning",
    version="0.1.0",
    files=(WEIGHTS, CONFIG),
    refusal=refusal,
    write=write,
    read=read,
    loading=lambda folder: (
        f'from dictionary_learning.utils import load_dictionary; sae, _ = load_dictionary({folder!r}, device="cpu")'
    ),
)
