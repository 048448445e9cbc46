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
    _consistent(settings, d_sae)
    name = sae_name(settings, identity.layers, identity.d_model)
    config = SaeConfig(
        architecture=settings.architecture,
        d_model=identity.d_model,
        d_sae=d_sae,
        k=settings.k if has_k(settings) else None,
        prefixes=prefix_sizes(settings.prefixes, d_sae) if settings.architecture == "matryoshka" else None,
    )
    return Target(name, layer, config, settings)


def resolve_targets(several: Sequence[Settings], identity: DataIdentity, feature_shards: int = 1) -> list[Target]:
    """Return the SAEs that a list of settings describes for this data.

    Raises:
        ConfigError: one of them cannot be trained or shared out so, or two have the same name.

    """
    targets = [resolve_target(settings, identity) for settings in several]
    for target in targets:
        if target.config.d_sae % feature_shards:
            raise ConfigError(
                f"The {target.config.d_sae} features of {target.name} cannot be shared out evenly over "
                f"--feature-shards {feature_shards}. Choose a number that divides d_sae."
            )
    for name, count in Counter(target.name for target in targets).items():
        if count > 1:
            raise ConfigError(f"{count} SAEs have the name {name!r}. Give each its own `name`: its files lie under it.")
    return targets


def has_k(settings: Settings) -> bool:
    """Whether the L0 is set by k; it is found by a sparsity coefficient otherwise."""
    return settings.architecture in {"topk", "batchtopk", "matryoshka"}


def unit_decoder(settings: Settings) -> bool:
    """Whether the decoder's rows are kept at norm 1."""
    return not _may_be_free(settings) or settings.decoder == "unit"


def _may_be_free(settings: Settings) -> bool:
    anthropic = settings.architecture == "jumprelu" and settings.jumprelu_recipe == "anthropic"
    return settings.architecture == "relu" or anthropic


def coefficient_of(settings: Settings) -> tuple[str, float]:
    """Return the name and the value of the sparsity coefficient of an architecture without k."""
    if settings.architecture == "jumprelu":
        return "l0_coeff", settings.l0_coeff
    return "l1_coeff", settings.l1_coeff


def _consistent(settings: Settings, d_sae: int) -> None:
    """Raise ConfigError where settings contradict each other."""
    architecture, of_k = settings.architecture, has_k(settings)
    if of_k and max(settings.k, settings.k_start or 0) > d_sae:
        name = "k" if settings.k > d_sae else "k_start"
        value = settings.k if settings.k > d_sae else settings.k_start
        raise ConfigError(f"{name} is {value}, more than the {d_sae} features of the SAE. Lower {name} or raise d_sae.")
    if settings.k_start is not None:
        if not of_k:
            raise ConfigError(f"k_start is for topk, batchtopk and matryoshka: {architecture} has no k. Leave it out.")
        if settings.k_start < settings.k:
            raise ConfigError(
                f"k_start is {settings.k_start}, less than k, to which it falls. Set one above {settings.k}."
            )
    if settings.resample and of_k:
        raise ConfigError(
            f"resample is for relu, jumprelu and gated: AuxK revives features of {architecture}. Leave it out."
        )
    if settings.decoder == "free" and not _may_be_free(settings):
        raise ConfigError(
            f"The decoder of {architecture} has rows of norm 1, which its loss rests on: leave decoder at auto."
        )
    if settings.decoder == "unit" and architecture == "jumprelu" and _may_be_free(settings):
        raise ConfigError(
            "The recipe anthropic weighs its penalty by the norms of a free decoder: leave decoder at auto, or take "
            "the recipe gdm."
        )
    if settings.target_l0 is not None:
        _consistent_target(settings, settings.target_l0, d_sae)


def _consistent_target(settings: Settings, target_l0: float, d_sae: int) -> None:
    if has_k(settings):
        raise ConfigError(
            f"target_l0 is for relu, jumprelu and gated. The L0 of {settings.architecture} is its k: set --k."
        )
    name, value = coefficient_of(settings)
    if value <= 0:
        raise ConfigError(f"target_l0 changes {name} from where it is: start with one above 0, such as 1e-3.")
    if target_l0 >= d_sae:
        raise ConfigError(f"target_l0 is {target_l0}, not less than the {d_sae} features of the SAE. Lower it.")


def config_document(target: Target, identity: DataIdentity) -> dict[str, Any]:
    """Return `config.json`: everything that decides the weights, up to numerics. Other settings need another name."""
    values = target.settings.model_dump(mode="json")
    values |= {"name": target.name, "layer": target.layer, "d_sae": target.config.d_sae}
    del values["expansion"]
    return {"format": 1, "identity": identity.sha256, "sae": values}
