"""Cross-entropy recovered: the model's own loss when a layer's output is replaced by the SAE's reconstruction.

    recovered = (ablated - spliced) / (ablated - clean)         1: nothing is lost; 0: as bad as the ablation

as SAEBench's core evaluation has it (arXiv 2503.09532), against ablation to zero and to the mean. All four losses are
means over the same next-token predictions. Only unflagged positions are replaced, in every variant: attention sinks and
special tokens, which the SAE was not trained on, keep their activations, or the score would be about them.

Legend: T tokens of a context, D d_model, V vocabulary. A batch is one context, so that activations are [1, T, D].
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name

from kubesae.errors import ConfigError
from kubesae.model.truncate import DTYPES, find_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from kubesae.model import ModelSource

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Context:
    """Token ids and flags of one context: uint32 [T] and uint8 [T]."""

    ids_T: npt.NDArray[np.uint32]
    flags_T: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean next-token cross-entropy in nats over `predictions` tokens, by what stands at the layer."""

    predictions: int
    clean: float
    spliced: float
    zero: float
    mean: float


def load_language_model(source: ModelSource, dtype: str) -> nn.Module:
    """Load the whole causal language model, on the GPUs where there are any.

    Raises:
        ConfigError: it is no causal language model, does not fit into memory, or cannot be loaded; the message is the
            reason why there is no cross-entropy.

    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds to import

    kinds = source.config.architectures or ()
    if not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        raise ConfigError(f"{source.name} predicts no next token: it is a {' or '.join(kinds) or 'model without a head'}.")
    _check_size(source, dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.path,
            revision=None if source.path != source.name else source.revision,
            dtype=DTYPES[dtype],
            device_map="auto" if torch.cuda.is_available() else "cpu",
            trust_remote_code=source.trust_remote_code,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"Cannot load the whole of {source.path!r}: {error}") from error
    return model.eval()  # type: ignore[no-any-return]


def _check_size(source: ModelSource, dtype: str) -> None:
    """Count the parameters on the meta device, which allocates nothing, before a large model fills the machine."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds to import

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(source.config, trust_remote_code=source.trust_remote_code)
    needed = sum(parameter.numel() for parameter in empty.parameters()) * DTYPES[dtype].itemsize
    available = _memory()
    if needed > available:
        raise ConfigError(
            f"The whole of {source.name} takes {needed / 1e9:.1f} GB in {dtype}; there are {available / 1e9:.1f} GB here."
        )


def _memory() -> int:
    """Bytes of memory: that of all GPUs, else the machine's or, in a container, what its limit allows."""
    if torch.cuda.is_available():
        return sum(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CONTAINER_LIMIT.read_text().strip() if _CONTAINER_LIMIT.exists() else "max"
    return min(machine, int(limit)) if limit.isdigit() else machine


def measure(
    model: nn.Module, layers: int, layer: int, contexts: Sequence[Context], sae: Callable[[Tensor], Tensor], mean_D: Tensor
) -> Losses:
    """Return the losses of `model` on `contexts`.

    Args:
        model: from `load_language_model`.
        layers: how many layers it has.
        layer: the layer whose output is replaced.
        contexts: what it is run on.
        sae: gives the reconstruction, float32 [N, D], of raw activations [N, D].
        mean_D: what ablation to the mean puts there.

    """
    module = find_layers(model, layers)[layer]
    variants: dict[str, Callable[[Tensor], Tensor] | None] = {
        "clean": None,
        "spliced": sae,
        "zero": torch.zeros_like,
        "mean": lambda x_ND: mean_D.to(x_ND.device).expand_as(x_ND),
    }
    totals = dict.fromkeys(variants, 0.0)
    for context in contexts:
        for name, replace in variants.items():
            totals[name] += _loss(model, module, context, replace)
    predictions = sum(len(context.ids_T) - 1 for context in contexts)
    return Losses(predictions, **{name: total / predictions for name, total in totals.items()})


@torch.inference_mode()
def _loss(model: nn.Module, module: nn.Module, context: Context, replace: Callable[[Tensor], Tensor] | None) -> float:
    """Summed cross-entropy of the predictions of one context."""
    device = next(model.parameters()).device
    ids_T = torch.from_numpy(context.ids_T.astype("int64")).to(device)
    handle = None if replace is None else module.register_forward_hook(_splice(context, replace))
    try:
        logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0]
    finally:
        if handle is not None:
            handle.remove()
    targets_T = ids_T[1:].to(logits_TV.device)
    return float(F.cross_entropy(logits_TV[:-1].float(), targets_T, reduction="sum"))


def _splice(context: Context, replace: Callable[[Tensor], Tensor]) -> Any:
    unflagged_T = torch.from_numpy(context.flags_T == 0)

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        x_1TD = output[0] if isinstance(output, tuple) else output
        spliced_1TD = x_1TD.clone()
        where_T = unflagged_T.to(x_1TD.device)
        spliced_1TD[0, where_T] = replace(x_1TD[0, where_T]).to(x_1TD.dtype)
        return (spliced_1TD, *output[1:]) if isinstance(output, tuple) else spliced_1TD

    return hook
