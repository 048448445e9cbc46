"""Tuning advice in words, with the run's own numbers.

L0 is to be 50 to 100 for a dictionary that people read. MSE targets are in normalised units, in which the mean square
of an activation is 1: there MSE and FVU nearly agree. Both are named, because an MSE in raw units says nothing about
another model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubesae.experiment import Sae as Settings
    from kubesae.sae import SaeConfig

L0_TOO_HIGH = 150
L0_TOO_LOW = 30
L0_WANTED = (50, 100)
MSE_TOO_HIGH = 0.015
MSE_TOO_LOW = 0.003
DEAD_TOO_MANY = 0.05


def advise(config: SaeConfig, settings: Settings, metrics: dict[str, Any], l1_coeff: float) -> list[str]:
    """Return advice on the best epoch's `metrics`, a sentence or two each; `l1_coeff` is the one in use at the end."""
    advice = [_sparsity(config, settings, metrics, l1_coeff), _reconstruction(config, settings, metrics, l1_coeff)]
    if metrics["dead_share"] > DEAD_TOO_MANY:
        advice.append(_dead(config, metrics))
    return advice


def _sparsity(config: SaeConfig, settings: Settings, metrics: dict[str, Any], l1_coeff: float) -> str:
    l0 = metrics["l0"]
    if config.k is not None:
        return f"L0 is {l0:.1f}, set by k = {config.k}. More features a token reconstruct better and read worse."
    if settings.target_l0 is not None:
        return f"L0 is {l0:.1f} (wanted: {settings.target_l0:g}), found with --l1-coeff {l1_coeff:.2e}."
    if l0 > L0_TOO_HIGH:
        return f"L0 is {l0:.1f}, over {L0_TOO_HIGH}: raise --l1-coeff from {l1_coeff:g} to {3 * l1_coeff:.1g}."
    if l0 < L0_TOO_LOW:
        return f"L0 is {l0:.1f}, under {L0_TOO_LOW}: lower --l1-coeff from {l1_coeff:g} to {0.3 * l1_coeff:.1g}."
    low, high = L0_WANTED
    where = "in" if low <= l0 <= high else "near"
    return f"L0 is {l0:.1f}, {where} the usual {low} to {high}. --target-l0 N finds the coefficient for an L0 of N."


def _reconstruction(config: SaeConfig, settings: Settings, metrics: dict[str, Any], l1_coeff: float) -> str:
    mse, fvu = metrics["mse"], metrics["fvu"]
    numbers = f"MSE is {mse:.4f} (normalised), FVU {fvu:.4f}"
    sparser = "lower --k" if config.k is not None else f"raise --l1-coeff above {l1_coeff:.2g}"
    denser = "raise --k" if config.k is not None else f"lower --l1-coeff from {l1_coeff:.2g} to {l1_coeff / 2:.1g}"
    if mse > MSE_TOO_HIGH:
        longer = f"train longer (--epochs {max(5, settings.epochs + 2)})"
        return f"{numbers}: over {MSE_TOO_HIGH}. To reconstruct better, {longer}, {denser}, or use a wider SAE (16x)."
    if mse < MSE_TOO_LOW:
        return f"{numbers}: under {MSE_TOO_LOW}, which may be overfitting. To see more in each feature, {sparser}."
    return f"{numbers}: good for interpretation."


def _dead(config: SaeConfig, metrics: dict[str, Any]) -> str:
    share = f"{metrics['dead_share']:.1%} of the features were active on no token of the last epoch"
    if config.k is not None:
        return f"{share}: lower dead_after so that AuxK revives them sooner, or train on more tokens."
    return f"{share}: raise sparsity_warmup, lower --l1-coeff, or train on more tokens."
