"""The files of a trained SAE, and `load_sae`.

    sae.safetensors    float32 W_enc [d_sae, d_model], b_enc [d_sae], W_dec [d_sae, d_model], b_dec [d_model], in raw
                       units: f = act((x - b_dec) W_enc^T + b_enc), x_hat = f W_dec + b_dec; threshold [d_sae], where
                       act keeps what is above one (all but relu and topk); input_mean [d_model]: the mean that training
                       subtracted, already folded into the others
    metadata.json      config (architecture and sizes), metrics, normalisation, what it was trained on and how; written
                       last, with the SHA-256 of the other: a folder without it is not an SAE

An SAE's folder (`sae/<name>`) holds `best.json`, which points at the folder of its best checkpoint. Nothing here needs
the rest of kubesae's programs, and nothing is ever unpickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch

from kubesae.errors import ConfigError, DamagedError, MissingError
from kubesae.experiment import canonical_json, parse_json_object, sha256_hex, validate
from kubesae.sae.config import SaeConfig
from kubesae.sae.inference import Sae
from kubesae.sae.normalise import fold, fold_threshold
from kubesae.sae.packing import pack
from kubesae.sae.threshold import in_use
from kubesae.sae.weights import Weights
from kubesae.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from kubesae.sae.normalise import Normaliser
    from kubesae.store import Store

FORMAT = 1
WEIGHTS = "sae.safetensors"
METADATA = "metadata.json"
POINTER = "best.json"

_MEND = "Restore the folder from a copy, or train the SAE again under another --sae-name."


def save_sae(
    store: Store,
    folder: str,
    config: SaeConfig,
    weights: Weights,
    normaliser: Normaliser,
    metadata: dict[str, Any],
    threshold: float | None = None,
) -> None:
    """Write trained `weights` (normalised units) in raw units to `folder` (a key that ends with a slash).

    `threshold`, in normalised units too, is that of an architecture which has one for all features.
    """
    used, raw_F = in_use(weights, threshold)
    threshold_F = None if raw_F is None else fold_threshold(raw_F, used, normaliser)
    write_sae(store, folder, config, fold(used, normaliser), threshold_F, normaliser, metadata)


def write_sae(
    store: Store,
    folder: str,
    config: SaeConfig,
    weights: Weights,
    threshold_F: Tensor | None,
    normaliser: Normaliser,
    metadata: dict[str, Any],
) -> None:
    """Write weights and thresholds that are in raw units to `folder` (a key that ends with a slash).

    `normaliser` is what they were folded with; of an SAE that was not trained here, one that does nothing.
    """
    tensors = dict(zip(Weights.names(), weights, strict=True)) | {"input_mean": normaliser.mean_D}
    if threshold_F is not None:
        tensors["threshold"] = threshold_F
    data, _ = pack(tensors)
    document = {
        "config": config.model_dump(mode="json"),
        "format": FORMAT,
        "normalisation": {"mean_norm": float(normaliser.mean_D.norm()), "scale": normaliser.scale},
        "sha256": sha256_hex(data),
        **metadata,
    }
    store.put(folder + WEIGHTS, data)
    store.put(folder + METADATA, canonical_json(document))


def load_sae(path_or_url: str | Path) -> Sae:
    """Load the SAE in a checkpoint's folder, or the best one of an SAE's folder, in the units of raw activations.

    Args:
        path_or_url: a folder or `s3://bucket/path`, of one checkpoint or of an SAE (it then holds `best.json`).

    Raises:
        ConfigError: there is no SAE there, or it is of a newer format.
        DamagedError: its files are not what their metadata says.

    """
    return load_sae_from(open_store(str(path_or_url)))


def load_sae_from(store: Store) -> Sae:
    """Load the SAE of which `store` is the folder; see `load_sae`."""
    try:
        metadata = parse_json_object(store.read(METADATA), store.url_of(METADATA))
    except MissingError:
        return load_sae_from(store.child(_best(store)))
    if metadata.get("format") != FORMAT:
        raise ConfigError(
            f"{store.url_of(METADATA)} has format {metadata.get('format')!r}; this version of kubesae reads {FORMAT}. "
            "Load it with the version that wrote it."
        )
    config = validate(SaeConfig, _object(metadata, "config", store), store.url_of(METADATA))
    weights, threshold_F = _read_weights(store, config, metadata)
    return Sae(config, weights, metadata, threshold_F)


def _best(store: Store) -> str:
    try:
        pointer = parse_json_object(store.read(POINTER), store.url_of(POINTER))
    except MissingError as error:
        raise ConfigError(
            f"There is no SAE at {store.url}: it holds neither {METADATA} nor {POINTER}. Give the folder of an SAE "
            "(PREFIX/sae/NAME) or of one of its checkpoints."
        ) from error
    checkpoint = pointer.get("checkpoint")
    if not isinstance(checkpoint, str) or not store.exists(f"{checkpoint}/{METADATA}"):
        raise DamagedError(f"{store.url_of(POINTER)} points at {checkpoint!r}, where there is no SAE. {_MEND}")
    return checkpoint


def _object(metadata: dict[str, Any], field: str, store: Store) -> dict[str, Any]:
    value = metadata.get(field)
    if not isinstance(value, dict):
        raise DamagedError(f"{store.url_of(METADATA)} has no object {field!r}. {_MEND}")
    return value


def _read_weights(store: Store, config: SaeConfig, metadata: dict[str, Any]) -> tuple[Weights, Tensor | None]:
    where = store.url_of(WEIGHTS)
    data = store.read(WEIGHTS)
    if sha256_hex(data) != metadata.get("sha256"):
        raise DamagedError(f"{where} is not the file that {METADATA} beside it describes: its SHA-256 differs. {_MEND}")
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise DamagedError(f"{where} is not a safetensors file ({error}). {_MEND}") from error
    matrix = (config.d_sae, config.d_model)
    shapes = {"W_enc": matrix, "b_enc": matrix[:1], "W_dec": matrix, "b_dec": matrix[1:]}
    if config.has_threshold:
        shapes["threshold"] = matrix[:1]
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            found = "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise DamagedError(f"{where} holds {found} as {name}; its metadata says float32 {list(shape)}. {_MEND}")
    return Weights(*(tensors[name] for name in Weights.names())), tensors.get("threshold")
