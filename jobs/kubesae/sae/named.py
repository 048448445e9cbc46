"""Find an SAE of an experiment by name, with the layer that it was trained on.

    named = open_named(output, None, identity)      # the only one there is

Evaluation and interpretation both begin here: they are about the best checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError, DamagedError
from kubesae.ledger import keys
from kubesae.sae.files import load_sae_from

if TYPE_CHECKING:
    from kubesae.experiment import DataIdentity
    from kubesae.sae.inference import Sae
    from kubesae.store import Store


@dataclass(frozen=True, slots=True)
class NamedSae:
    """The best checkpoint of an SAE. `sha256` is that of its weights, `layer` the one whose output it reconstructs."""

    name: str
    sha256: str
    layer: int
    sae: Sae


def sae_names(output: Store) -> list[str]:
    """Return the names of the SAEs in `output` that have a best checkpoint, sorted."""
    found = (key.split("/") for key in output.list("sae/"))
    return sorted(name for _, name, *rest in found if rest == ["best.json"])


def open_named(output: Store, name: str | None, identity: DataIdentity) -> NamedSae:
    """Load the SAE called `name`, or the only one there is, and see that it fits the data.

    Raises:
        ConfigError: there is none, none of that name, or more than one to choose from; or it reconstructs a layer that
            the data does not have, or activations of another width.
        DamagedError: its files are not what their metadata says.

    """
    names = sae_names(output)
    if not names:
        raise ConfigError(f"No SAE has been trained at {output.url} yet. Run `kubesae train` first.")
    if name is None and len(names) > 1:
        raise ConfigError(f"There are several SAEs at {output.url}. Choose one with --sae-name: {', '.join(names)}.")
    name = name or names[0]
    if name not in names:
        raise ConfigError(f"There is no SAE {name!r} at {output.url}. Give --sae-name one of: {', '.join(names)}.")
    sae = load_sae_from(output.child(keys.sae_folder(name).rstrip("/")))
    layer = sae.metadata.get("layer")
    if not isinstance(layer, int):
        raise DamagedError(
            f"The metadata of SAE {name} at {output.url} does not say which layer it is of. Train it again."
        )
    if layer not in identity.layers or sae.config.d_model != identity.d_model:
        raise ConfigError(
            f"SAE {name} is of layer {layer}, {sae.config.d_model} wide; the data has layers {list(identity.layers)}, "
            f"{identity.d_model} wide. Give the data that the SAE was trained on, or another --sae-name."
        )
    return NamedSae(name, str(sae.metadata["sha256"]), layer, sae)
