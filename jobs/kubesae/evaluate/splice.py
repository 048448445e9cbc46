"""Cross-entropy and KL recovered: what the model loses when a layer's output is replaced by the SAE's reconstruction.

    CE recovered = (ablated - spliced) / (ablated - clean)      1: nothing is lost; 0: as bad as the ablation
    KL recovered = 1 - KL(clean || spliced) / KL(clean || ablated)

as SAEBench's core evaluation has them (arXiv 2503.09532), against ablation to zero and to the mean. All losses are
means over the same next-token predictions. Cross-entropy forgives a change that happens to favour the right token; the
divergence forgives none. Only unflagged positions are replaced, in every variant: attention sinks and special tokens,
which the SAE was not trained on, keep their activations, or the score would be about them.

Legend: T tokens of a context, D d_model, V vocabulary. A batch is one context, so that activations are [1, T, D].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name

from kubesae.evaluate.report import CrossEntropy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from kubesae.sae import Sae

    # activations [N, D] -> what stands in their place, [N, D]
    Replace = Callable[[Tensor], Tensor]

# Predictions compared at a time: two log-probabilities of all tokens in float32 for each.
_PREDICTIONS = 256


@dataclass(frozen=True, slots=True)
class Context:
    """Token ids and flags of one context: uint32 [T] and uint8 [T]."""

    ids_T: npt.NDArray[np.uint32]
    flags_T: npt.NDArray[np.uint8]


def measure(model: nn.Module, module: nn.Module, contexts: Sequence[Context], sae: Sae, mean_D: Tensor) -> CrossEntropy:
    """Return the losses of `model` on `contexts`.

    Args:
        model: from `model.whole.load_language_model`.
        module: its layer whose output is replaced.
        contexts: what it is run on, of at least 2 tokens each.
        sae: of that layer.
        mean_D: what ablation to the mean puts there.

    """
    device = next(module.parameters()).device
    sae, mean_D = sae.to(device), mean_D.to(device)
    variants: dict[str, Replace | None] = {
        "clean": None,
        "spliced": lambda x_ND: sae(x_ND)[0],
        "zero_ablated": torch.zeros_like,
        "mean_ablated": mean_D.expand_as,
    }
    predictions = sum(len(context.ids_T) - 1 for context in contexts)
    sums = dict.fromkeys(variants, torch.zeros(2, dtype=torch.float64))
    for context in contexts:
        clean_TV = _logits(model, module, context, None)
        for name, replace in variants.items():
            other_TV = clean_TV if replace is None else _logits(model, module, context, replace)
            sums[name] = sums[name] + _losses(context, clean_TV, other_TV)
    losses, divergences = ({name: float(pair[i] / predictions) for name, pair in sums.items()} for i in range(2))
    return CrossEntropy(
        contexts=len(contexts),
        predictions=predictions,
        recovered_zero=_recovered(losses, "zero_ablated"),
        recovered_mean=_recovered(losses, "mean_ablated"),
        kl_recovered_zero=_recovered(divergences, "zero_ablated"),
        kl_recovered_mean=_recovered(divergences, "mean_ablated"),
        **losses,
        **{f"kl_{name}": value for name, value in divergences.items() if name != "clean"},
    )


def _recovered(losses: dict[str, float], ablated: str) -> float | None:
    """Share of an ablation's damage that the SAE avoids; None where the ablation does no damage."""
    damage = losses[ablated] - losses["clean"]
    return (losses[ablated] - losses["spliced"]) / damage if damage > 0 else None


@torch.inference_mode()
def _logits(model: nn.Module, module: nn.Module, context: Context, replace: Replace | None) -> Tensor:
    """Return [T - 1, V]: what the model says of each next token of a context."""
    device = next(model.parameters()).device
    ids_T = torch.from_numpy(context.ids_T.astype("int64")).to(device)
    handle = None if replace is None else module.register_forward_hook(_splice(context, replace))
    try:
        logits_TV: Tensor = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1]
    finally:
        if handle is not None:
            handle.remove()
    return logits_TV


@torch.inference_mode()
def _losses(context: Context, clean_TV: Tensor, other_TV: Tensor) -> Tensor:
    """Return, float64 [2], the cross-entropy of `other_TV` and KL(clean || other), each summed over the predictions."""
    targets_T = torch.from_numpy(context.ids_T[1:].astype("int64")).to(other_TV.device)
    total = torch.zeros(2, dtype=torch.float64)
    for rows in torch.arange(len(targets_T)).split(_PREDICTIONS):
        at = slice(int(rows[0]), int(rows[-1]) + 1)
        clean, other = (F.log_softmax(logits_TV[at].float(), dim=1) for logits_TV in (clean_TV, other_TV))
        loss = F.nll_loss(other, targets_T[at], reduction="none").sum(dtype=torch.float64)
        total += torch.stack([loss, divergence(clean, other).sum(dtype=torch.float64)]).cpu()
    return total


def divergence(p_TV: Tensor, q_TV: Tensor) -> Tensor:
    """Return [T]: KL(p || q) of log-probabilities. It is not below 0, where rounding would have it so."""
    ratio_TV = torch.where(p_TV > -torch.inf, p_TV - q_TV, 0.0)  # a token that p rules out counts for nothing
    return (p_TV.exp() * ratio_TV).sum(1).clamp_min(0)


def _splice(context: Context, replace: Replace) -> Any:
    unflagged_T = torch.from_numpy(context.flags_T == 0)

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        x_1TD = output[0] if isinstance(output, tuple) else output
        spliced_1TD = x_1TD.clone()
        where_T = unflagged_T.to(x_1TD.device)
        spliced_1TD[0, where_T] = replace(x_1TD[0, where_T]).to(x_1TD.dtype)
        return (spliced_1TD, *output[1:]) if isinstance(output, tuple) else spliced_1TD

    return hook
