"""Tuning advice in words, with the run's own numbers.

L0 is to be 50 to 100 for a dictionary that people read. MSE targets are in normalised units, in which the mean square
of an activation is 1: there MSE and FVU nearly agree. Both are named, because an MSE in raw units says nothing about
another model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubesae.train.settings import coefficient_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.experiment import Sae as Settings
    from kubesae.sae import SaeConfig

L0_TOO_HIGH = 150
L0_TOO_LOW = 30
L0_WANTED = (50, 100)
MSE_TOO_HIGH = 0.015
MSE_TOO_LOW = 0.003
DEAD_TOO_MANY = 0.05
WAIT_TOO_LONG = 0.2
FEW_STEPS = 100


def advise(config: SaeConfig, settings: Settings, metrics: dict[str, Any], l1_coeff: float) -> list[str]:
    """Return advice on the best epoch's `metrics`, a sentence or two each.

    `l1_coeff` is the sparsity coefficient in use at the end, of jumprelu too.
    """
    advice = [_sparsity(config, settings, metrics, l1_coeff), _reconstruction(config, settings, metrics, l1_coeff)]
    if metrics["step"] < FEW_STEPS:
        advice.append(
            f"Training took {metrics['step']} steps, too few to judge by. Lower --batch-size from "
            f"{settings.batch_size:,}, or use more tokens."
        )
    if metrics["dead_share"] > DEAD_TOO_MANY:
        advice.append(_dead(config, settings, metrics))
    return advice


def advise_speed(lines: Sequence[dict[str, Any]], workers: int) -> list[str]:
    """Return advice where the last epoch waited for its data; `lines` are its metrics of kind "step"."""
    rows, seconds, waited, before = 0, 0.0, 0.0, 0
    for line in lines:
        if line["kind"] == "step" and line["epoch"] == lines[-1]["epoch"]:
            spent = (line["rows"] - before) / (line["tokens_per_second"] or 1.0)
            rows, seconds = rows + line["rows"] - before, seconds + spent
            waited += line["data_wait_share"] * spent
        before = line.get("rows", before)
    if waited <= WAIT_TOO_LONG * seconds:
        return []
    share, speed = waited / seconds, rows / seconds
    advice = (
        f"Training waited for data {share:.0%} of the last epoch, at {speed:,.0f} tokens/s. Raise --num-workers above "
        f"{workers}, or bring the data nearer: a bucket in the same region, a copy on a local disk."
    )
    return [advice]


def _sparsity(config: SaeConfig, settings: Settings, metrics: dict[str, Any], l1_coeff: float) -> str:
    l0 = metrics["l0"]
    if config.k is not None:
        return f"L0 is {l0:.1f}, set by k = {config.k}. More features a token reconstruct better and read worse."
    flag = _flag(settings)
    if settings.target_l0 is not None:
        return f"L0 is {l0:.1f} (wanted: {settings.target_l0:g}), found with {flag} {l1_coeff:.2e}."
    if l0 > L0_TOO_HIGH:
        return f"L0 is {l0:.1f}, over {L0_TOO_HIGH}: raise {flag} from {l1_coeff:g} to {3 * l1_coeff or 1e-3:.2g}."
    if l0 < L0_TOO_LOW:
        return f"L0 is {l0:.1f}, under {L0_TOO_LOW}: lower {flag} from {l1_coeff:g} to {0.3 * l1_coeff:.2g}."
    low, high = L0_WANTED
    where = "in" if low <= l0 <= high else "near"
    return f"L0 is {l0:.1f}, {where} the usual {low} to {high}. --target-l0 N finds the coefficient for an L0 of N."


def _reconstruction(config: SaeConfig, settings: Settings, metrics: dict[str, Any], l1_coeff: float) -> str:
    mse, fvu = metrics["mse"], metrics["fvu"]
    numbers = f"MSE is {mse:.4f} (normalised), FVU {fvu:.4f}"
    sparser = "lower --k" if config.k is not None else f"raise {_flag(settings)} above {l1_coeff:.2g}"
    if mse > MSE_TOO_HIGH:
        steps = [f"train longer (--epochs {max(5, settings.epochs + 2)})"]
        if config.k is not None:
            steps.append("raise --k")
        elif L0_TOO_LOW <= metrics["l0"] <= L0_TOO_HIGH:  # else the L0 has said what becomes of the coefficient
            steps.append(f"lower {_flag(settings)} from {l1_coeff:.2g} to {l1_coeff / 2:.2g}")
        wider = "or use a wider SAE (--expansion 16)"
        return f"{numbers}: over {MSE_TOO_HIGH}. To reconstruct better, {', '.join(steps)}, {wider}."
    if mse < MSE_TOO_LOW:
        return f"{numbers}: under {MSE_TOO_LOW}, which may be overfitting. To see more in each feature, {sparser}."
    return f"{numbers}: good for interpretation."


def _flag(settings: Settings) -> str:
    """Return the flag of the sparsity coefficient."""
    return "--" + coefficient_of(settings)[0].replace("_", "-")


def _dead(config: SaeConfig, settings: Settings, metrics: dict[str, Any]) -> str:
    share = f"{metrics['dead_share']:.1%} of the features were active on no token of the last epoch"
    if config.k is not None:
        return f"{share}: lower dead_after so that AuxK revives them sooner, or train on more tokens."
    return f"{share}: raise sparsity_warmup, lower {_flag(settings)}, or train on more tokens."
