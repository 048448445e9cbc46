"""Make an SAE of an experiment out of one that another library trained.

    sae/<name>/config.json              what it was made of: create-only, so a name is taken once
    sae/<name>/imported/                sae.safetensors, metadata.json
    sae/<name>/best.json                points there; written last

What is killed in the middle is done again by the same command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kubesae.errors import ConfigError, MissingError
from kubesae.experiment import Sae as Settings
from kubesae.experiment import canonical_json, sha256_hex, validate
from kubesae.ledger import keys
from kubesae.sae.files import write_sae
from kubesae.sae.formats.registry import FORMATS
from kubesae.sae.normalise import Normaliser

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubesae.experiment import DataIdentity
    from kubesae.sae.formats.format import Foreign, Format
    from kubesae.store import Store


def read_files(made: Format, source: Store) -> dict[str, bytes]:
    """Return the content of a format's files. Raises ConfigError: one is not there."""
    files = {}
    for file in made.files:
        try:
            files[file] = source.read(file)
        except MissingError as error:
            raise ConfigError(
                f"There is no SAE of the format {made.name} at {source.url}: it has no {file}. Give --from the folder "
                f"that holds {' and '.join(made.files)}, or another --format."
            ) from error
    return files


def read_foreign(name: str, source: Store) -> Foreign:
    """Read the SAE of the format `name` in the folder that `source` is.

    Raises:
        ConfigError: there is none, or kubesae has no form for it.
        DamagedError: its files are not what they should be.

    """
    return FORMATS[name].read(read_files(FORMATS[name], source), source.url)


def import_sae(output: Store, identity: DataIdentity, name: str, source: Store, sae_name: str, layer: int) -> Foreign:
    """Write the SAE of the format `name` in the folder `source` as the SAE `sae_name` of an experiment.

    Args:
        output: where the experiment's SAEs are.
        identity: of its data.
        name: the format.
        source: the other library's folder.
        sae_name: a name that is not taken.
        layer: the layer whose output it reconstructs.

    Raises:
        ConfigError: there is no such SAE or layer, it has another width, kubesae has no form for it, or the name is
            taken.
        DamagedError: its files are not what they should be.

    """
    validate(Settings, {"name": sae_name, "layer": layer}, "the flags")
    made = FORMATS[name]
    files = read_files(made, source)
    foreign = made.read(files, source.url)
    if layer not in identity.layers:
        raise ConfigError(f"The data has no layer {layer}: its layers are {list(identity.layers)}. Give one of these.")
    if foreign.config.d_model != identity.d_model:
        raise ConfigError(
            f"The SAE at {source.url} is {foreign.config.d_model} wide, the data {identity.d_model}. Give an SAE of "
            "this model, or its data."
        )
    origin = _origin(made, files, foreign)
    _claim(output, sae_name, {"format": 1, "identity": identity.sha256, "imported": origin, "layer": layer})
    metadata = {
        "identity": identity.sha256,
        "imported": origin | {"notes": list(foreign.notes)},
        "layer": layer,
        "model": identity.model,
        "model_revision": identity.model_revision,
        "name": sae_name,
    }
    nothing = Normaliser(torch.zeros(identity.d_model), 1.0)
    folder = keys.imported_folder(sae_name)
    write_sae(output, folder, foreign.config, foreign.weights, foreign.threshold_F, nothing, metadata)
    pointer = {"checkpoint": folder.removeprefix(keys.sae_folder(sae_name)).rstrip("/"), "format": 1, "imported": True}
    output.put(keys.best(sae_name), canonical_json(pointer))
    return foreign


def _origin(made: Format, files: Mapping[str, bytes], foreign: Foreign) -> dict[str, Any]:
    """Return what an SAE was made of: no path, so that the same files are the same SAE wherever they lie."""
    digests = {file: sha256_hex(data) for file, data in files.items()}
    return {"files": digests, "kind": foreign.kind, "library": made.name}


def _claim(output: Store, name: str, document: dict[str, Any]) -> None:
    """Take a name. Raises ConfigError: it is taken by another SAE, or this one is there already."""
    data = canonical_json(document)
    taken = not output.create(keys.sae_config(name), data)
    if taken and (output.read(keys.sae_config(name)) != data or output.exists(keys.best(name))):
        raise ConfigError(
            f"There is an SAE {name} at {output.url} already; nothing was touched. Give another --sae-name."
        )
