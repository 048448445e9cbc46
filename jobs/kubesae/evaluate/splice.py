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
from kubesae.evaluate.report import CrossEntropy
from kubesae.hub import loading
from kubesae.memory import memory_for
from kubesae.model.truncate import DTYPES, WEIGHTS_ADVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from kubesae.model import ModelSource
    from kubesae.sae import Sae

    # activations [N, D] -> what stands in their place, [N, D]
    Replace = Callable[[Tensor], Tensor]

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Context:
    """Token ids and flags of one context: uint32 [T] and uint8 [T]."""

    ids_T: npt.NDArray[np.uint32]
    flags_T: npt.NDArray[np.uint8]


def load_language_model(source: ModelSource, dtype: str) -> nn.Module:
    """Load the whole causal language model, on the GPUs where there are any.

    Raises:
        ConfigError: it is no causal language model, does not fit into memory, or cannot be loaded; the message is the
            reason why there is no cross-entropy.

    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds to import
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    kinds = source.config.architectures or ()
    if not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        raise ConfigError(f"{source.name} predicts no next token: it is a {' or '.join(kinds) or 'headless model'}.")
    _check_size(source, dtype)
    what = f"the whole of {source.path!r}"
    with loading(what, WEIGHTS_ADVICE), memory_for(what, "Leave it out with --ce-contexts 0."):
        model = AutoModelForCausalLM.from_pretrained(
            source.path,
            revision=None if source.path != source.name else source.revision,
            dtype=DTYPES[dtype],
            device_map="auto" if torch.cuda.is_available() else "cpu",
            trust_remote_code=source.trust_remote_code,
        )
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
            f"The whole of {source.name} takes {needed / 1e9:.1f} GB in {dtype}; here are {available / 1e9:.1f} GB."
        )


def _memory() -> int:
    """Bytes of memory: that of all GPUs, else the machine's or, in a container, what its limit allows."""
    if torch.cuda.is_available():
        return sum(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CONTAINER_LIMIT.read_text().strip() if _CONTAINER_LIMIT.exists() else "max"
    return min(machine, int(limit)) if limit.isdigit() else machine


def measure(model: nn.Module, module: nn.Module, contexts: Sequence[Context], sae: Sae, mean_D: Tensor) -> CrossEntropy:
    """Return the losses of `model` on `contexts`.

    Args:
        model: from `load_language_model`.
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
    losses = {
        name: sum(_loss(model, module, context, replace) for context in contexts) / predictions
        for name, replace in variants.items()
    }
    return CrossEntropy(
        contexts=len(contexts),
        predictions=predictions,
        recovered_zero=_recovered(losses, "zero_ablated"),
        recovered_mean=_recovered(losses, "mean_ablated"),
        **losses,
    )


def _recovered(losses: dict[str, float], ablated: str) -> float | None:
    """Share of an ablation's damage that the SAE avoids; None where the ablation does no damage."""
    damage = losses[ablated] - losses["clean"]
    return (losses[ablated] - losses["spliced"]) / damage if damage > 0 else None


@torch.inference_mode()
def _loss(model: nn.Module, module: nn.Module, context: Context, replace: Replace | None) -> float:
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


def _splice(context: Context, replace: Replace) -> Any:
    unflagged_T = torch.from_numpy(context.flags_T == 0)

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        x_1TD = output[0] if isinstance(output, tuple) else output
        spliced_1TD = x_1TD.clone()
        where_T = unflagged_T.to(x_1TD.device)
        spliced_1TD[0, where_T] = replace(x_1TD[0, where_T]).to(x_1TD.dtype)
        return (spliced_1TD, *output[1:]) if isinstance(output, tuple) else spliced_1TD

    return hook
