"""Load a model only as deep as its deepest captured layer: no later layer, no output head, is read or built.

The config is cut and the base model is loaded from it; transformers then reads only the tensors that the cut model
has. Activations are taken from the layers' own outputs, so what follows the last layer does not matter.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kubesae.errors import ConfigError
from kubesae.hub import loading
from kubesae.memory import memory_for
from kubesae.model.products import quicken

if TYPE_CHECKING:
    from kubesae.model.source import ModelSource

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

WEIGHTS_ADVICE = "Check that its folder is complete and in the Hugging Face format, and model_dtype and device."


def truncate_config(config: Any, depth: int) -> Any:
    """Return a copy of a transformers config with `depth` layers; lists that have an entry a layer are cut too."""
    cut = copy.deepcopy(config)
    text = cut.get_text_config()
    whole = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == whole and name.endswith(("layer_types", "layers", "sizes")):
            setattr(text, name, value[:depth])
    text.num_hidden_layers = depth
    return cut


def load_truncated(source: ModelSource, depth: int, dtype: str, device: str) -> nn.Module:
    """Load the first `depth` layers of a model, in evaluation mode.

    Args:
        source: the model.
        depth: number of layers to keep.
        dtype: the model computes in this.
        device: a torch device, or `auto`: spread over all visible GPUs where there are any, else the CPU.

    Raises:
        ConfigError: the weights cannot be loaded.
        HubError: the hub does not answer.
        KubesaeError: they do not fit into memory.

    """
    from transformers import AutoModel  # noqa: PLC0415 - seconds to import
    from transformers.utils import logging  # noqa: PLC0415

    logging.set_verbosity_error()  # each tensor of a later layer would be reported as unexpected
    logging.disable_progress_bar()
    placement = device if device != "auto" else "auto" if torch.cuda.is_available() else "cpu"
    what = f"the weights of {source.path!r}"
    with loading(what, WEIGHTS_ADVICE), memory_for(what, "Capture earlier `layers`, or give the worker more memory."):
        model = AutoModel.from_pretrained(
            source.path,
            config=truncate_config(source.config, depth),
            revision=None if source.path != source.name else source.revision,
            dtype=DTYPES[dtype],
            device_map=placement,
            trust_remote_code=source.trust_remote_code,
        )
    quicken(model, next(model.parameters()).device, DTYPES[dtype])
    return model.eval()  # type: ignore[no-any-return]


def loaded_bytes(source: ModelSource, depth: int, dtype: str) -> int:
    """Return the bytes of the first `depth` layers of a model, and what is before them, in `dtype`; none is loaded."""
    from accelerate import init_empty_weights  # noqa: PLC0415 - seconds to import
    from transformers import AutoModel  # noqa: PLC0415

    with init_empty_weights():
        model = AutoModel.from_config(
            truncate_config(source.config, depth), dtype=DTYPES[dtype], trust_remote_code=source.trust_remote_code
        )
    return sum(parameter.nbytes for parameter in model.parameters())


def path_of(part: nn.Module, model: nn.Module) -> str:
    """Return the name that a part of a model has in it."""
    names: dict[int, str] = {id(module): name for name, module in model.named_modules()}
    return names[id(part)]


def find_layers(model: nn.Module, depth: int) -> nn.ModuleList:
    """Return the list of the model's layers: its first ModuleList with `depth` entries.

    Raises:
        ConfigError: the model has none.

    """
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ConfigError(
        f"{type(model).__name__} has no ModuleList of {depth} layers to capture from. Give another model."
    )
