"""SAEs of SAELens (PyPI: sae-lens 6.54.12), as `SAE.load_from_disk` reads them.

    sae_weights.safetensors    W_enc [d_in, d_sae], b_enc [d_sae], W_dec [d_sae, d_in], b_dec [d_in]; of jumprelu also
                               threshold [d_sae]; of gated b_gate, b_mag, r_mag [d_sae] in place of b_enc
    cfg.json                   architecture, d_in, d_sae, dtype, device, apply_b_dec_to_input, normalize_activations,
                               reshape_activations, metadata; of topk also k, rescale_acts_by_decoder_norm

Formulas, with y = x - b_dec, or y = x where apply_b_dec_to_input is false:

    standard    f = ReLU(y W_enc + b_enc)
    topk        f = ReLU(the k largest of y W_enc + b_enc); with rescale_acts_by_decoder_norm these are multiplied by
                the norms of the decoder's rows before, and f is divided by them again in the decoder
    jumprelu    f = ReLU(z) where z > threshold: what BatchTopK and Matryoshka SAEs are saved as, too
    gated       f = ReLU(y W_enc exp(r_mag) + b_mag) where y W_enc + b_gate > 0
    x_hat = f W_dec + b_dec

What is missing in a config means: apply_b_dec_to_input true; and in files of versions before 6, which say no
sae_lens_version of 6 or more, architecture standard, or topk where activation_fn (activation_fn_str) is topk.

Three normalisations depend on the row (layer_norm, constant_norm_rescale) or on numbers that are not in the files
(expected_average_only_in, covariance_whitening; `load_from_disk` leaves these out without a word): all are refused. An
SAE that SAELens has finished training has them folded and says none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import safetensors.torch

from kubesae.errors import ConfigError
from kubesae.experiment import parse_json_object
from kubesae.sae.formats import fold
from kubesae.sae.formats.files import FLOATS, parse_safetensors, positive
from kubesae.sae.formats.format import Foreign, Format, hint_of, make_config, threshold_config
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kubesae.sae.formats.format import Tensors
    from kubesae.sae.inference import Sae

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
VERSION = "6.54.12"
ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")


def refusal(_sae: Sae) -> str | None:
    """SAELens holds every SAE of ours."""
    return None


def write(sae: Sae) -> dict[str, bytes]:
    """Return the files of `sae`."""
    tensors = dict(zip(Weights.names(), sae.weights, strict=True)) | {"W_enc": sae.weights.W_enc_FD.T}
    config: dict[str, Any] = {"architecture": "standard"}
    if sae.threshold_F is not None:
        config = {"architecture": "jumprelu"}
        tensors["threshold"] = sae.threshold_F
    elif sae.config.k is not None:
        config = {"architecture": "topk", "k": sae.config.k, "rescale_acts_by_decoder_norm": False}
    config |= {
        "d_in": sae.config.d_model,
        "d_sae": sae.config.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": _metadata(sae),
    }
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return {WEIGHTS: data, CONFIG: json.dumps(config, indent=1).encode()}


def _metadata(sae: Sae) -> dict[str, Any]:
    """Return what the SAE is of, in SAELens' words; the version decides how SAELens reads the config."""
    said = {"model_name": sae.metadata.get("model"), "kubesae": hint_of(sae.config)}
    if isinstance(sae.metadata.get("layer"), int):
        said["hook_name"] = f"blocks.{sae.metadata['layer']}.hook_resid_post"
    return {"sae_lens_version": VERSION, "sae_lens_training_version": None, **said}


def read(files: Mapping[str, bytes], where: str) -> Foreign:
    """Read an SAE."""
    said = f"{where}/{CONFIG}"
    config = _modern(parse_json_object(files[CONFIG], said), said)
    _refuse_what_is_not_in_the_weights(config, said)
    sizes = {"d_model": positive(config, "d_in", said), "d_sae": positive(config, "d_sae", said)}
    dtype = FLOATS.get(str(config.get("dtype", "float32")).removeprefix("torch."))
    tensors, notes = parse_safetensors(files[WEIGHTS], f"{where}/{WEIGHTS}", dtype)
    tensors.drop("scaling_factor", only=1)  # as SAELens does; another one is refused below
    weights, threshold_F = _weights(tensors, config["architecture"], **sizes)
    tensors.end()
    if not config.get("apply_b_dec_to_input", True):
        weights = fold.subtract_b_dec(weights)
    if config["architecture"] == "topk":
        made = make_config("topk", where, k=positive(config, "k", said, at_most=sizes["d_sae"]), **sizes)
        weights, kept = _topk_rows(weights, config.get("rescale_acts_by_decoder_norm", False), said)
        return Foreign(made, weights, None, "topk", notes + kept + _place(config))
    weights, threshold_F = fold.unit_rows(weights, threshold_F)
    if threshold_F is None:
        return Foreign(make_config("relu", where, **sizes), weights, None, "standard", notes + _place(config))
    otherwise = "gated" if config["architecture"] == "gated" else "jumprelu"
    made = threshold_config(config["metadata"].get("kubesae"), **sizes, where=where, otherwise=otherwise)
    return Foreign(made, weights, threshold_F, config["architecture"], notes + _place(config))


def _modern(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a config of any version in the form of version 6, by the rules that SAELens has for that."""
    metadata = config.get("metadata")
    config["metadata"] = metadata if isinstance(metadata, dict) else {}
    version = str(config.get("sae_lens_version") or config["metadata"].get("sae_lens_version") or "0")
    if not (version.split(".", maxsplit=1)[0].isdigit() and int(version.split(".", maxsplit=1)[0]) >= 6):
        activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
        config.setdefault("architecture", "standard")
        hook = config["metadata"].setdefault("hook_name", config.get("hook_name", config.get("hook_point", "")))
        config.setdefault("reshape_activations", "hook_z" if "hook_z" in str(hook) else "none")
        if activation == "topk":
            config["architecture"] = "topk"
            config.setdefault("k", (config.get("activation_fn_kwargs") or {}).get("k"))
        elif activation != "relu":
            raise ConfigError(
                f"{where} says activation_fn: {activation!r}, which kubesae does not have (relu, topk). Choose another."
            )
    if config.get("architecture") not in ARCHITECTURES:
        raise ConfigError(
            f"{where} says architecture: {config.get('architecture')!r}, which kubesae does not have "
            f"({', '.join(ARCHITECTURES)}). Choose another SAE."
        )
    return config


def _refuse_what_is_not_in_the_weights(config: dict[str, Any], where: str) -> None:
    """Refuse an SAE that does more than its weights say."""
    normalised = config.get("normalize_activations")
    if normalised not in {None, False, "none"}:
        raise ConfigError(
            f"{where} says normalize_activations: {normalised!r}. What that does depends on each row, or on numbers "
            "that are not in these files. Fold it in SAELens (sae.fold_activation_norm_scaling_factor), and save it."
        )
    if config.get("reshape_activations", "none") != "none":
        raise ConfigError(
            f"{where} says reshape_activations: {config['reshape_activations']!r}: it reads the outputs of attention "
            "heads, and activations here are those of layers. Choose another SAE."
        )
    if config.get("finetuning_scaling_factor"):
        raise ConfigError(
            f"{where} says finetuning_scaling_factor: true, which SAELens has given up and kubesae does not have. "
            "Multiply it into the decoder and save the SAE again."
        )


def _weights(tensors: Tensors, architecture: str, d_model: int, d_sae: int) -> tuple[Weights, Tensor | None]:
    """Return weights and thresholds in the form of a threshold, as if b_dec were subtracted."""
    W_enc_FD = tensors.take("W_enc", d_model, d_sae).T.contiguous()
    threshold_F = None
    if architecture == "gated":
        gates = (tensors.take(name, d_sae) for name in ("b_gate", "r_mag", "b_mag"))
        W_enc_FD, b_enc_F, threshold_F = fold.ungate(W_enc_FD, *gates)
    else:
        b_enc_F = tensors.take("b_enc", d_sae)
        if architecture == "jumprelu":
            # ReLU comes first: a negative threshold is one of 0
            threshold_F = tensors.take("threshold", d_sae).clamp_min(0)
    weights = Weights(W_enc_FD, b_enc_F, tensors.take("W_dec", d_sae, d_model), tensors.take("b_dec", d_model))
    return weights, threshold_F


def _topk_rows(weights: Weights, rescale: object, where: str) -> tuple[Weights, tuple[str, ...]]:
    """Return the weights of a TopK SAE, and what to say of its decoder's rows."""
    if not rescale:
        return weights, fold.kept_rows(weights)
    if bool((fold.norms(weights) == 0).any()):
        raise ConfigError(
            f"{where} says rescale_acts_by_decoder_norm, and some decoder rows are zero: SAELens divides by their norm "
            "and gives NaN. Fold the norms in SAELens (sae.fold_W_dec_norm), and save it."
        )
    folded, _ = fold.unit_rows(weights)
    return folded, ()


def _place(config: dict[str, Any]) -> tuple[str, ...]:
    """Return where in the model the SAE was trained, where the config says it."""
    metadata = config["metadata"]
    hook = metadata.get("hook_name")
    if not hook:
        return ()
    model = metadata.get("model_name") or config.get("model_name") or "a model that is not named"
    return (f"SAELens says that it is of {hook} of {model}: see that this is --layer (its output: hook_resid_post).",)


FORMAT = Format(
    name="sae-lens",
    version=VERSION,
    files=(WEIGHTS, CONFIG),
    refusal=refusal,
    write=write,
    read=read,
    loading=lambda folder: f"from sae_lens import SAE; sae = SAE.load_from_disk({folder!r})",
)
