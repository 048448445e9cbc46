"""A transformers model without weights, into which those of one layer at a time are put.

transformers' own conversion brings a checkpoint's tensors to the names and shapes of its modules (experts, say, are
stacked): it is given the tensors of one layer, where `from_pretrained` gives it all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from kubesae.errors import ConfigError
from kubesae.model.products import quicken
from kubesae.model.quantised import dequantised
from kubesae.model.truncate import DTYPES, WEIGHTS_ADVICE, find_layers, path_of, truncate_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transformers import PreTrainedModel

    from kubesae.model.quantised import Lazy
    from kubesae.model.source import ModelSource


class Skeleton:
    """A model on `device`, as deep as is needed; parameters that are not loaded are on the meta device."""

    def __init__(self, source: ModelSource, depth: int, dtype: str, device: torch.device) -> None:
        """Build it; buffers, which no checkpoint holds, are computed."""
        from accelerate import init_empty_weights  # noqa: PLC0415 - seconds to import
        from transformers import AutoModel  # noqa: PLC0415
        from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415
        from transformers.modeling_utils import LoadStateDictConfig  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        config = truncate_config(source.config, depth)
        self._quantised = _take_quantisation(config)
        self.dtype, self.device = DTYPES[dtype], device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        with init_empty_weights(include_buffers=False):
            model = AutoModel.from_config(config, dtype=self.dtype, trust_remote_code=source.trust_remote_code)
        quicken(model, device, self.dtype)
        self.model: PreTrainedModel = model.eval()
        self.layers = find_layers(model, depth)
        self.path = path_of(self.layers, model)
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module.register_buffer(name, buffer.to(device), name not in module._non_persistent_buffers_set)  # noqa: SLF001 - has no public name
        self._load_config = LoadStateDictConfig(
            dtype=self.dtype,
            dtype_plan=model._get_dtype_plan(self.dtype),  # noqa: SLF001 - what from_pretrained asks for, too
            weight_mapping=cast("Any", get_model_conversion_mapping(model)),
            device_map={"": device},
        )

    def bring(self, tensors: Mapping[str, Lazy]) -> dict[str, Lazy]:
        """Return tensors of a layer as they are stored; on GPUs, there."""
        if self._copies is None:
            return dict(tensors)
        with torch.cuda.stream(self._copies):  # beside what computes
            moved: dict[str, Lazy] = {
                name: tensor[...].pin_memory().to(self.device, non_blocking=True) for name, tensor in tensors.items()
            }
        self._copies.synchronize()
        return moved

    def take(self, raw: dict[str, Lazy], layer: int | None = None) -> None:
        """Put in what `bring` gave.

        Raises:
            ConfigError: a weight is missing, or has another shape.

        """
        from transformers.core_model_loading import convert_and_load_state_dict_in_model  # noqa: PLC0415

        for tensor in raw.values() if self._copies is not None else ():
            tensor.record_stream(torch.cuda.current_stream(self.device))  # type: ignore[attr-defined] # a tensor there
        info, _ = convert_and_load_state_dict_in_model(self.model, dequantised(raw, self._quantised), self._load_config)
        if info.mismatched_keys or info.conversion_errors or info.error_msgs:
            wrong = [*info.mismatched_keys, *info.conversion_errors.items(), *info.error_msgs][0]
            raise ConfigError(f"The weights {_of(layer)} do not fit the model's config: {wrong}. {WEIGHTS_ADVICE}")
        missing = next((name for name, parameter in self._parameters(layer) if parameter.is_meta), None)
        if missing is not None:
            raise ConfigError(f"The weights {_of(layer)} lack {missing!r}. {WEIGHTS_ADVICE}")

    def drop(self, layer: int) -> None:
        """Take a layer's weights out again."""
        for module in self.layers[layer].modules():
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.is_meta:
                    setattr(module, name, nn.Parameter(parameter.to("meta"), requires_grad=False))

    def _parameters(self, layer: int | None) -> Iterable[tuple[str, nn.Parameter]]:
        if layer is not None:
            return self.layers[layer].named_parameters()
        inside = f"{self.path}."
        return ((name, value) for name, value in self.model.named_parameters() if not name.startswith(inside))


def _of(layer: int | None) -> str:
    return "outside the layers" if layer is None else f"of layer {layer}"


def _take_quantisation(config: Any) -> dict[str, Any] | None:
    """Remove and return what a config says of how its weights are quantised."""
    found = None
    for part in (config, config.get_text_config()):
        quantised = getattr(part, "quantization_config", None)
        if quantised is not None:
            found = quantised if isinstance(quantised, dict) else quantised.to_dict()
            delattr(part, "quantization_config")
    return found
