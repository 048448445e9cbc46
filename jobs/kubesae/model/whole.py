"""The whole causal language model, head included: what generation and a loss need, where it is at hand and fits.

model = load_language_model(source, "bfloat16", "Leave it out with --ce-contexts 0.")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kubesae import limits
from kubesae.errors import ConfigError
from kubesae.hub import loading
from kubesae.memory import memory_for
from kubesae.model.products import quicken
from kubesae.model.truncate import DTYPES, WEIGHTS_ADVICE

if TYPE_CHECKING:
    from torch import nn

    from kubesae.model.source import ModelSource


def load_language_model(source: ModelSource, dtype: str, mend: str) -> nn.Module:
    """Load the whole causal language model, on the GPUs where there are any.

    Args:
        source: the model.
        dtype: it computes in this.
        mend: what to do where memory runs out all the same.

    Raises:
        ConfigError: it is no causal language model, does not fit into memory, or cannot be loaded; the message is the
            reason why what needs it cannot be had.
        KubesaeError: memory ran out while it was loaded.

    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds to import
    from transformers.utils import logging  # noqa: PLC0415

    logging.set_verbosity_error()  # what is missing is said below
    logging.disable_progress_bar()
    kinds = source.config.architectures or ()
    if not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        raise ConfigError(f"{source.name} predicts no next token: it is a {' or '.join(kinds) or 'headless model'}.")
    _check_size(source, dtype)
    what = f"the whole of {source.path!r}"
    with loading(what, WEIGHTS_ADVICE), memory_for(what, mend):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.path,
            revision=None if source.path != source.name else source.revision,
            dtype=DTYPES[dtype],
            device_map="auto" if torch.cuda.is_available() else "cpu",
            trust_remote_code=source.trust_remote_code,
            output_loading_info=True,
        )
    model, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise ConfigError(
            f"The weights of {source.path!r} lack {missing[0]}{f' and {len(missing) - 1} more' * (len(missing) > 1)}: "
            "its later layers and head were cut off. Give all weight files of the model as `model`."
        )
    quicken(model, next(model.parameters()).device, DTYPES[dtype])
    return model.eval()  # type: ignore[no-any-return]


def whole_bytes(source: ModelSource, dtype: str) -> int:
    """Return the bytes of all weights in `dtype`, counted on the meta device, which allocates nothing."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds to import

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(source.config, trust_remote_code=source.trust_remote_code)
    return int(sum(parameter.numel() for parameter in empty.parameters())) * DTYPES[dtype].itemsize


def _check_size(source: ModelSource, dtype: str) -> None:
    """Look before a large model fills the machine."""
    needed, available = whole_bytes(source, dtype), _memory()
    if needed > available:
        raise ConfigError(
            f"The whole of {source.name} takes {needed / 1e9:.1f} GB in {dtype}; here are {available / 1e9:.1f} GB."
        )


def _memory() -> int:
    """Bytes of memory: that of all GPUs, else the machine's or, in a container, what its limit allows."""
    if torch.cuda.is_available():
        return sum(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    return limits.memory()[0]
