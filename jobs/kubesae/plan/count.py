"""Count a model's parameters by layer and kind: transformers builds it on the meta device, without any weight.

One mechanism for all architectures: what counts is the module that a tensor lies in, not a formula for each family.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubesae.errors import ConfigError
from kubesae.model.source import SAME_AS
from kubesae.plan.quantization import Packing, is_unknown, packing_of
from kubesae.plan.shape import Attention, Group, Layer, ModelShape, by_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from kubesae.plan.known import ModelConfig

_ITEMSIZE = {"bfloat16": 2, "float16": 2, "float32": 4}
_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts", "moe_top_k")
_EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
_ONE_EXPERT = re.compile(r"experts\.\d+")
# transformers keeps all experts of a layer in one tensor; a checkpoint has a matrix for each of these.
_FUSED = {"gate_up_proj": ("gate_proj", "up_proj")}


def count(source: ModelConfig, *, trust_remote_code: bool = False) -> ModelShape:
    """Return the shape of a model.

    Raises:
        ConfigError: transformers does not know the architecture, or cannot build it from this config.

    """
    config = transformers_config(source, trust_remote_code=trust_remote_code)
    model = _build(source, config, trust_remote_code=trust_remote_code)
    text = config.get_text_config()
    from kubesae.model.inputs import is_causal  # noqa: PLC0415 - loads torch
    from kubesae.model.truncate import find_layers, path_of  # noqa: PLC0415

    layers = find_layers(model, int(text.num_hidden_layers))
    quantization = source.values.get("quantization_config")
    counter = _Counter(model, text, packing_of(quantization), _ITEMSIZE.get(source.stored, 2))
    before, inside, after = counter.run(path_of(layers, model), len(layers))
    causal = is_causal(model)
    packing = packing_of(quantization)
    words = packing.words if packing else str(quantization.get("quant_method")) if quantization else None
    return ModelShape(
        name=source.name,
        origin=source.origin,
        model_type=str(source.values.get("model_type", "")),
        d_model=int(text.hidden_size),
        vocab_size=int(text.vocab_size),
        max_context=getattr(text, "max_position_embeddings", None),
        before=before,
        layers=tuple(Layer(groups, _attention(text, index, causal=causal)) for index, groups in enumerate(inside)),
        after=after,
        stored=source.stored,
        quantization=f"{words} (not known: counted as {source.stored})" if is_unknown(quantization) else words,
        prediction_layers=int(source.values.get("num_nextn_predict_layers") or 0),
        experts=counter.experts,
        active_experts=counter.active_experts,
    )


def transformers_config(source: ModelConfig, *, trust_remote_code: bool = False) -> Any:
    """Return the config as transformers takes it, without what says how weights are packed.

    Raises:
        ConfigError: transformers does not know the architecture, or the config is not one of it.

    """
    from transformers import AutoConfig  # noqa: PLC0415 - seconds to import
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415

    values = {name: value for name, value in source.values.items() if name not in {"quantization_config", "auto_map"}}
    kind = values.pop("model_type", None)
    kind = SAME_AS.get(str(kind), str(kind))
    try:
        if kind in CONFIG_MAPPING:
            return CONFIG_MAPPING[kind].from_dict(values)
        if trust_remote_code and source.path is not None:
            return AutoConfig.from_pretrained(source.path, trust_remote_code=True)
    except Exception as error:
        raise ConfigError(f"The config of {source.name} does not describe a {kind} model: {error}. Mend it.") from error
    raise ConfigError(
        f"transformers does not know the architecture {kind!r} of {source.name}. Give another `model`, a newer "
        "transformers, or --trust-remote-code if its repository ships its code."
    )


def _build(source: ModelConfig, config: Any, *, trust_remote_code: bool) -> nn.Module:
    import torch  # noqa: PLC0415 - seconds to import
    from transformers import AutoModel, AutoModelForCausalLM  # noqa: PLC0415
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING  # noqa: PLC0415

    # An encoder's head is not what it is published with: the base model is.
    decoder = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and "bert" not in str(config.model_type)
    remote = bool(getattr(config, "auto_map", None))
    kind = AutoModelForCausalLM if decoder or remote else AutoModel
    try:
        with torch.device("meta"):
            built: nn.Module = kind.from_config(config, trust_remote_code=trust_remote_code)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ConfigError(f"transformers cannot build {source.name} from its config: {error}. Mend it.") from error
    return built


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor and where it lies: name and type of its module, and whether that is a `Linear` as it is packed."""

    module: str
    type_name: str
    linear: bool
    tensor: Tensor
    name: str


class _Counter:
    """Sorts the tensors of one model into groups."""

    def __init__(self, model: nn.Module, text: Any, packing: Packing | None, itemsize: int) -> None:
        self._model = model
        self._packing = packing
        self._itemsize = itemsize
        self._top_k, self._experts_by_config = (
            next((int(getattr(text, name)) for name in names if getattr(text, name, None)), 0)
            for names in (_TOP_K, _EXPERTS)
        )
        self.experts = self.active_experts = 0

    def run(self, layers: str, depth: int) -> tuple[tuple[Group, ...], list[tuple[Group, ...]], tuple[Group, ...]]:
        """Return the groups before the layers (named `layers`), of each layer, and after them."""
        before: list[Group] = []
        inside: list[list[Group]] = [[] for _ in range(depth)]
        after: list[Group] = []
        for place in self._places():
            if place.module.startswith(f"{layers}."):
                index, _, rest = place.module.removeprefix(f"{layers}.").partition(".")
                inside[int(index)].append(self._group(_kind_inside(rest, place), place))
            elif _is_embedding(place):
                before.append(self._group("embeddings", place))
            else:
                after.append(self._group("norms" if "norm" in place.type_name.lower() else "head", place))
        return _merged(before), [_merged(groups) for groups in inside], _merged(after)

    def _places(self) -> Iterator[_Place]:
        from torch import nn  # noqa: PLC0415

        seen: set[int] = set()
        for name, module in self._model.named_modules():
            for parameter, tensor in module.named_parameters(recurse=False):
                if id(tensor) not in seen:  # tied weights count once, where they come first
                    seen.add(id(tensor))
                    linear = isinstance(module, nn.Linear) and parameter == "weight"
                    yield _Place(name, type(module).__name__, linear, tensor, parameter)

    def _group(self, kind: str, place: _Place) -> Group:
        shape = tuple(place.tensor.shape)
        parameters = math.prod(shape)
        if kind == "experts" and not _ONE_EXPERT.search(place.module):
            return self._experts(place, shape)
        matrix = len(shape) == 2 and kind != "embeddings"
        # GPT-2's Conv1D holds its matrix the other way round: inputs first
        outputs = shape[-1] if place.type_name == "Conv1D" else shape[0]
        packed = place.linear and self._packing is not None and self._packing.packs(place.module)
        disk = self._packing.bytes_of(shape) if packed and self._packing else parameters * self._itemsize
        # code outside transformers may have a module an expert: each of them meets its share of the tokens
        share = self._active_share() if kind == "experts" else 1.0
        active = round(parameters * share)
        return Group(
            kind,
            parameters,
            active,
            active if matrix else 0,
            round(outputs * share) if matrix else 0,
            disk,
            parameters if packed else 0,
            disk if packed else 0,
        )

    def _active_share(self) -> float:
        """Return the share of the experts that a token goes to, by the config."""
        self.experts = self._experts_by_config or 1
        self.active_experts = min(self.experts, self._top_k or self.experts)
        return self.active_experts / self.experts

    def _experts(self, place: _Place, shape: tuple[int, ...]) -> Group:
        """Return the group of one tensor of all experts [experts, outputs, inputs], or of biases [experts, outputs]."""
        experts, outputs = shape[0], shape[1]
        active = min(experts, self._top_k or experts)
        self.experts, self.active_experts = experts, active
        parameters = math.prod(shape)
        one, matrix = parameters // experts, len(shape) == 3
        parts = _FUSED.get(place.name, (place.name,))
        names = [f"{place.module}.0.{part}" for part in parts]  # as the checkpoint calls those of the first expert
        packed = matrix and self._packing is not None and all(map(self._packing.packs, names))
        disk = parameters * self._itemsize
        if packed and self._packing is not None:
            disk = experts * len(parts) * self._packing.bytes_of((outputs // len(parts), shape[2]))
        return Group(
            "experts",
            parameters,
            active * one,
            active * one if matrix else 0,
            active * outputs if matrix else 0,
            disk,
            parameters if packed else 0,
            disk if packed else 0,
        )


def _merged(groups: list[Group]) -> tuple[Group, ...]:
    return tuple(by_kind(groups).values())


def _is_embedding(place: _Place) -> bool:
    words = f"{place.type_name}.{place.module}".lower()
    return "embed" in words or place.type_name == "Embedding"


def _kind_inside(path: str, place: _Place) -> str:
    """Return the kind of a tensor of a layer, by the names of the modules that it lies in."""
    type_name, parts = place.type_name.lower(), path.lower().split(".")
    if "norm" in type_name:
        return "norms"
    if any(part.startswith("shared_expert") for part in parts):
        return "shared experts"
    if "experts" in parts or type_name.endswith("experts"):
        return "experts"
    if type_name.endswith(("router", "gate")) or parts[-1] in {"gate", "router"}:
        return "router"
    return "attention" if any("attn" in part or "attention" in part for part in parts) else "mlp"


def _attention(text: Any, index: int, *, causal: bool) -> Attention | None:
    """Return the attention of a layer; None for one of linear cost."""
    types = getattr(text, "layer_types", None)
    kind = types[index] if types else "full_attention"
    if "linear" in kind:
        return None
    heads = int(text.num_attention_heads)
    window = getattr(text, "sliding_window", None) if kind == "sliding_attention" else None
    if getattr(text, "kv_lora_rank", None):  # multi-head latent attention, arXiv 2405.04434
        width, values = int(text.qk_nope_head_dim) + int(text.qk_rope_head_dim), int(text.v_head_dim)
    else:
        width = values = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    return Attention(heads, width, values, window, causal)
