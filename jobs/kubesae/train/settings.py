"""From what a user asked for to what is trained: every default resolved, every contradiction refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubesae.errors import ConfigError
from kubesae.ledger import sae_name
from kubesae.sae import SaeConfig
from kubesae.sae.matryoshka import prefix_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.experiment import DataIdentity
    from kubesae.experiment import Sae as Settings


@dataclass(frozen=True, slots=True)
class Target:
    """The SAE to train: its name, layer, architecture and sizes, and how it is trained."""

    name: str
    layer: int
    config: SaeConfig
    settings: Settings


def resolve_target(settings: Settings, identity: DataIdentity) -> Target:
    """Return the SAE that `settings` describe for this data.

    Raises:
        ConfigError: the layer is not said or not there, or the settings contradict each other.

    """
    if settings.layer is None and len(identity.layers) > 1:
        raise ConfigError(f"Which layer? The data has layers {list(identity.layers)}: give one with --layer.")
    layer = identity.layers[0] if settings.layer is None else settings.layer
    if layer not in identity.layers:
        raise ConfigError(f"Layer {layer} was not collected: the data has layers {list(identity.layers)}. Choose one.")
    d_sae = settings.d_sae or settings.expansion * identity.d_model
    sparse = settings.architecture != "relu"
    if sparse and settings.k > d_sae:
        raise ConfigError(f"k is {settings.k}, more than the {d_sae} features of the SAE. Lower k or raise d_sae.")
    if settings.target_l0 is not None:
        if sparse:
            raise ConfigError(f"target_l0 is for ReLU + L1. The L0 of {settings.architecture} is its k: set --k.")
        if settings.l1_coeff <= 0:
            raise ConfigError("target_l0 changes l1_coeff from where it is: start with one above 0, such as 1e-3.")
        if settings.target_l0 >= d_sae:
            raise ConfigError(
                f"target_l0 is {settings.target_l0}, not less than the {d_sae} features of the SAE. Lower it."
            )
    name = sae_name(settings, identity.layers, identity.d_model)
    config = SaeConfig(
        architecture=settings.architecture,
        d_model=identity.d_model,
        d_sae=d_sae,
        k=settings.k if sparse else None,
        prefixes=prefix_sizes(settings.prefixes, d_sae) if settings.architecture == "matryoshka" else None,
    )
    return Target(name, layer, config, settings)


def resolve_targets(several: Sequence[Settings], identity: DataIdentity) -> list[Target]:
    """Return the SAEs that a list of settings describes for this data.

    Raises:
        ConfigError: one of them cannot be trained, or two have the same name.

    """
    targets = [resolve_target(settings, identity) for settings in several]
    for name, count in Counter(target.name for target in targets).items():
        if count > 1:
            raise ConfigError(f"{count} SAEs have the name {name!r}. Give each its own `name`: its files lie under it.")
    return targets


def config_document(target: Target, identity: DataIdentity) -> dict[str, Any]:
    """Return `config.json`: everything that decides the weights, up to numerics. Other settings need another name."""
    values = target.settings.model_dump(mode="json")
    values |= {"name": target.name, "layer": target.layer, "d_sae": target.config.d_sae}
    del values["expansion"]
    return {"format": 1, "identity": identity.sha256, "sae": values}
