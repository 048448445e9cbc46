"""SAEs of EleutherAI's sparsify (PyPI: eai-sparsify 1.3.3), as `SparseCoder.load_from_disk` reads them.

    sae.safetensors    encoder.weight [d_sae, d_in], encoder.bias [d_sae], W_dec [d_sae, d_in], b_dec [d_in]
                       (W_skip [d_in, d_in] of a coder with a skip connection: refused)
    cfg.json           activation, expansion_factor, normalize_decoder, num_latents (0: expansion_factor x d_in), k,
                       multi_topk, skip_connection, transcode, d_in

It holds TopK and nothing else: f = the k largest of ReLU((x - b_dec) W_enc^T + b_enc), x_hat = f W_dec + b_dec. These
are our formulas, so weights go over bit for bit. Where two features are equal at the k-th place we take the lower
number and sparsify leaves it open. Loading normalises nothing, whatever `normalize_decoder` says.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import safetensors.torch

from kubesae.errors import ConfigError
from kubesae.experiment import parse_json_object
from kubesae.sae.formats import fold
from kubesae.sae.formats.files import parse_safetensors, positive
from kubesae.sae.formats.format import Foreign, Format, make_config
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubesae.sae.inference import Sae

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


def refusal(sae: Sae) -> str | None:
    """Say why sparsify cannot hold `sae`."""
    if sae.config.has_threshold or sae.config.k is None:
        return f"it holds TopK SAEs only, and this one is {sae.config.architecture}"
    return None


def write(sae: Sae) -> dict[str, bytes]:
    """Return the files of `sae`."""
    config = {
        "activation": "topk",
        "expansion_factor": -(-sae.config.d_sae // sae.config.d_model),
        "normalize_decoder": True,
        "num_latents": sae.config.d_sae,
        "k": sae.config.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.config.d_model,
    }
    tensors = dict(zip(TENSORS, (tensor.contiguous() for tensor in sae.weights), strict=True))
    return {WEIGHTS: safetensors.torch.save(tensors), CONFIG: json.dumps(config, indent=1).encode()}


def read(files: Mapping[str, bytes], where: str) -> Foreign:
    """Read an SAE."""
    said = f"{where}/{CONFIG}"
    config = parse_json_object(files[CONFIG], said)
    _refuse_other_coders(config, said)
    tensors, notes = parse_safetensors(files[WEIGHTS], f"{where}/{WEIGHTS}")
    d_model = positive(config, "d_in", said)
    d_sae = config.get("num_latents") and positive(config, "num_latents", said)
    d_sae = d_sae or d_model * positive(config, "expansion_factor", said)
    k = positive(config, "k", said, at_most=d_sae)
    weights = Weights(
        tensors.take("encoder.weight", d_sae, d_model),
        tensors.take("encoder.bias", d_sae),
        tensors.take("W_dec", d_sae, d_model),
        tensors.take("b_dec", d_model),
    )
    tensors.end()
    made = make_config("topk", where, d_model=d_model, d_sae=d_sae, k=k)
    return Foreign(made, weights, None, "SparseCoder", notes + fold.kept_rows(weights))


def _refuse_other_coders(config: dict[str, object], where: str) -> None:
    """Refuse what is no plain TopK SAE; fields that are not there have sparsify's own defaults, which are."""
    plain = {"activation": "topk", "skip_connection": False, "transcode": False, "signed": False}
    for name, value in plain.items():
        if config.get(name, value) != value:
            raise ConfigError(
                f"{where} says {name}: {json.dumps(config[name])}, which kubesae does not have ({json.dumps(value)} it "
                "has). Choose another SAE."
            )


FORMAT = Format(
    name="sparsify",
    version="1.3.3",
    files=(WEIGHTS, CONFIG),
    refusal=refusal,
    write=write,
    read=read,
    loading=lambda folder: f"from sparsify import SparseCoder; sae = SparseCoder.load_from_disk({folder!r})",
)
