"""Schedules: learning rate, sparsity, k, and the controller that finds the sparsity coefficient for a wanted L0.

All are pure functions of the step, so that a resumed run goes on exactly.
"""

from __future__ import annotations

import math

_RELU_RATE = 3e-4
_RATE = 0.11
_HIGHEST_RATE = 0.005
# The controller changes the coefficient by a factor of e over this share of the run while L0 is e times too high.
_RESPONSE = 0.03
# Largest error, as log(L0 / target), that it acts on: L0 starts far off, and the coefficient must not run away.
_LARGEST_ERROR = 1.0
# Share of the run after which L0 has to be at its target.
_APPROACH = 0.5


def default_rate(architecture: str, total_steps: int) -> float:
    """Return the peak of the learning rate where none is given.

    A short training needs a higher one: what is best falls as the root of its length. On planted features (width 256,
    4,096 features, k = 8) the best of 4e-4 to 1e-2 was 5e-3 for 500 and 2,000 steps; more than that costs wide SAEs
    their features (docs/decisions.md). SAEs of language models are trained with about 3e-4 for 100,000 steps and more,
    which is the rule's value there. ReLU + L1 has 3e-4 always: its coefficient's unit was found with it.
    """
    return _RELU_RATE if architecture == "relu" else min(_HIGHEST_RATE, _RATE / math.sqrt(max(1, total_steps)))


def learning_rate(step: int, total: int, peak: float, warmup: float, decay: float, *, cosine: bool = False) -> float:
    """Return the learning rate of `step` (from 0) of `total`: a linear rise, the peak, a fall to 0.

    `warmup` and `decay` are shares of the run; a decay of 0 leaves the rate at its peak. The fall is linear, or half a
    cosine. The fall over the last fifth is Anthropic's (April 2024): it lowers the
    loss more than the same steps at the peak would.
    """
    rise = (step + 1) / (warmup * total) if warmup > 0 else 1.0
    fall = (total - step) / (decay * total) if decay > 0 else 1.0
    if cosine:
        fall = (1 - math.cos(math.pi * min(1.0, fall))) / 2
    return peak * min(1.0, rise, fall)


def sparsity(step: int, total: int, warmup: float) -> float:
    """Return the factor of the sparsity loss at `step`: a linear rise from 0 over the share `warmup`, then 1.

    Features that are penalised before they mean anything die.
    """
    return min(1.0, step / (warmup * total)) if warmup > 0 else 1.0


def annealed(step: int, total: int, start: int, end: int, share: float) -> int:
    """Return k at `step`: a linear fall from `start` to `end` over a share of the run, rounded up, then `end`.

    With many active features at first, all of them learn something before they have to compete (Llama Scope,
    arXiv 2410.20526: from d_model over the first 10%).
    """
    left = 1 - step / (share * total) if share > 0 else 0.0
    return end + math.ceil((start - end) * max(0.0, left))


def highest_l0(step: int, total: int, target: float, features: int) -> float:
    """Return the L0 that `steer` allows at `step`: half of all features at first, the target after half of the run.

    It falls geometrically. L0 follows the coefficient with a delay, so a coefficient that had to bring L0 down at once
    would overshoot, and features that all of a sudden are active nowhere do not come back.
    """
    left = max(0.0, 1 - step / (_APPROACH * total))
    return target * math.pow(max(1.0, features / 2 / target), left)


def steer(coefficient: float, l0: float, target: float, total: int, highest: float | None = None) -> float:
    """Return the sparsity coefficient for the next step, given the L0 of this one.

    An integral controller on logarithms: the coefficient rises while L0 is above `highest` (default: the target) and
    falls while it is below the target, at a rate set by the length of the run. L0 falls monotonically as the
    coefficient rises, so it settles.
    """
    l0 = max(l0, 1e-3)
    error = max(0.0, math.log(l0 / (highest or target))) + min(0.0, math.log(l0 / target))
    error = max(-_LARGEST_ERROR, min(_LARGEST_ERROR, error))
    return coefficient * math.exp(error / (_RESPONSE * total))
