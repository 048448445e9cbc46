"""Schedules: learning rate, sparsity, and the controller that finds the l1 coefficient for a wanted L0.

All are pure functions of the step, so that a resumed run goes on exactly.
"""

from __future__ import annotations

import math

# The controller changes the coefficient by a factor of e over this share of the run while L0 is e times too high.
_RESPONSE = 0.03
# Largest error, as log(L0 / target), that it acts on: L0 starts far off, and the coefficient must not run away.
_LARGEST_ERROR = 1.0


def learning_rate(step: int, total: int, peak: float, warmup: float, decay: float) -> float:
    """Return the learning rate of `step` (from 0) of `total`: a linear rise, the peak, a linear fall to 0.

    `warmup` and `decay` are shares of the run. The fall over the last fifth is Anthropic's (April 2024): it lowers the
    loss more than the same steps at the peak would.
    """
    rise = (step + 1) / (warmup * total) if warmup > 0 else 1.0
    fall = (total - step) / (decay * total) if decay > 0 else 1.0
    return peak * min(1.0, rise, fall)


def sparsity(step: int, total: int, warmup: float) -> float:
    """Return the factor of the sparsity loss at `step`: a linear rise from 0 over the share `warmup`, then 1.

    Features that are penalised before they mean anything die.
    """
    return min(1.0, step / (warmup * total)) if warmup > 0 else 1.0


def steer(l1_coeff: float, l0: float, target: float, total: int) -> float:
    """Return the l1 coefficient for the next step, given the L0 of this one.

    An integral controller on logarithms: the coefficient rises while L0 is above the target and falls while it is
    below, at a rate set by the length of the run. L0 falls monotonically as the coefficient rises, so it settles.
    """
    error = math.log(max(l0, 1e-3) / target)
    error = max(-_LARGEST_ERROR, min(_LARGEST_ERROR, error))
    return l1_coeff * math.exp(error / (_RESPONSE * total))
