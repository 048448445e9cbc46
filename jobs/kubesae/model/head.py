"""What comes after a model's layers, loaded alone: its final norm and its output head. No layer's weight is read.

    logits_BV = load_head(source).effect(directions_BD)         # what a direction of the residual stream writes

The modules are transformers' own, built without weights; theirs are then read by name from the checkpoint, or from the
`head.safetensors` that `kubesae truncate --with-head` keeps. Where the head is the embedding (tied), that is read.
What a model makes of its logits after that, a cap (Gemma-2) or a factor (Cohere, Granite), is left out: both grow with
the logits, so that they change no order of tokens.

Legend: B directions, D d_model, V vocabulary.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from safetensors import safe_open
from torch import nn

from kubesae.errors import ConfigError
from kubesae.experiment import is_path
from kubesae.hub import loading
from kubesae.memory import memory_for
from kubesae.model.source import resolve_model
from kubesae.model.truncate import WEIGHTS_ADVICE, truncate_config
from kubesae.model.weight_files import INDEX, WHOLE

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.experiment import Experiment
    from kubesae.model.source import ModelSource

HEAD = "head.safetensors"
"""final norm and output head of a truncated model, where these were kept: no index names it, nothing else loads it"""
FINAL_NORM = re.compile(r"(?:^|\.)(?:norm|final_layernorm|final_layer_norm|ln_f)\.")


@dataclass(frozen=True, slots=True)
class Head:
    """Final norm and output head of a model, in float32."""

    norm: nn.Module
    output: nn.Linear

    @torch.no_grad()
    def logits(self, x_BD: Tensor, tokens: slice = slice(None)) -> Tensor:
        """Return the logits of `tokens` [B, V], float32, of residual streams [B, D] after the last layer."""
        weight_VD = self.output.weight[tokens]
        bias_V: Tensor | None = self.output.bias
        x_BD = self.norm(x_BD.to(weight_VD.device, torch.float32))
        return F.linear(x_BD, weight_VD, None if bias_V is None else bias_V[tokens])

    @torch.no_grad()
    def effect(self, direction_BD: Tensor, tokens: slice = slice(None)) -> Tensor:
        """Return what directions [B, D] raise and lower: logits(d) - logits(0) of `tokens`, [B, V], float32.

        They go through the norm like a residual stream, which gives its gains their say. An RMSNorm divides by the
        length of what it is given, so the length of a direction does not matter (but for the norm's epsilon), and zero
        stays zero. A LayerNorm takes the mean off as well, and adds its bias. That bias, and the head's, say what the
        model predicts when it knows nothing, not what the feature adds: they are the logits of zero, and are taken off.
        """
        logits_BV = self.logits(direction_BD, tokens)
        of_zero_BV = self.logits(torch.zeros_like(direction_BD[:1]), tokens)
        return logits_BV.sub_(of_zero_BV) if of_zero_BV.any() else logits_BV

    @property
    def vocab_size(self) -> int:
        """Tokens that have a logit."""
        return len(self.output.weight)


def load_head(source: ModelSource, device: torch.device | str = "cpu") -> Head:
    """Load a model's final norm and output head from the files that are on this machine; nothing is downloaded.

    Memory: the head, V x D x 4 bytes, and what it is stored as.

    Raises:
        ConfigError: the model has no head, its files are not here, or they lack it; the message is one sentence or two
            that say what would help.
        KubesaeError: memory ran out.

    """
    folder = _folder(source)
    what = f"the output head of {source.path!r}"
    with loading(what, WEIGHTS_ADVICE), memory_for(what, "Give the program more memory."):
        model = _empty(source)
        norm = _final_norm(model, source)
        output = model.get_output_embeddings()
        tied = output.weight is model.get_input_embeddings().weight
        places = _places(folder)
        for part in (norm, output):
            name = _name_of(model.get_input_embeddings() if tied and part is output else part, model)
            _fill(part, name, places, device, source)
    if output.weight.shape[1] != source.d_model:
        raise ConfigError(
            f"The output head of {source.name} takes vectors of {output.weight.shape[1]}, not of the residual stream's "
            f"{source.d_model}: the model changes them in a way that is not known here"
        )
    return Head(norm, output)


def find_model(experiment: Experiment, revision: str) -> ModelSource:
    """Find the experiment's model in this revision, on this machine alone: in its folder, or the hub's cache.

    Raises:
        ConfigError: it is not here, or in another revision; or as `resolve_model`.

    """
    model = experiment.model
    if not Path(model).expanduser().is_dir():
        if is_path(model):
            raise ConfigError(f"There is no folder {model!r} with a model on this machine")
        _cached(model, revision)
        return resolve_model(experiment.model_copy(update={"model_revision": revision}))
    source = resolve_model(experiment)
    if source.revision != revision:
        raise ConfigError(
            f"The model is revision {source.revision[:12]} here, and the data was collected from {revision[:12]}"
        )
    return source


def _folder(source: ModelSource) -> Path:
    """Return where the model's files are on this machine."""
    folder = Path(source.path).expanduser()
    return folder if folder.is_dir() else _cached(source.name, source.revision)


def _cached(name: str, revision: str) -> Path:
    """Return the folder of a hub model in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - slow to import

    with loading(f"the config of {name!r} from the hub's cache", WEIGHTS_ADVICE):
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(found, str):
        raise ConfigError(f"The files of {name} are not on this machine, at revision {revision[:12]}")
    return Path(found).parent


def _empty(source: ModelSource) -> Any:
    """Return the causal language model with one layer, without weights."""
    from accelerate import init_empty_weights  # noqa: PLC0415 - seconds to import
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    kinds = source.config.architectures or ()
    if not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        raise ConfigError(
            f"{source.name} has no output head: it is a {' or '.join(kinds) or 'model without one'}, which predicts no "
            "next token"
        )
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(
            truncate_config(source.config, 1), dtype=torch.float32, trust_remote_code=source.trust_remote_code
        )
    model.tie_weights()
    return model.eval()


def _final_norm(model: Any, source: ModelSource) -> nn.Module:
    """Return the norm after all layers: the only module with weights that is called as one, and is in no layer."""
    found: list[nn.Module] = [
        module
        for name, module in model.named_modules()
        if FINAL_NORM.search(f"{name}.") and not re.search(r"\.\d+\.", name) and any(True for _ in module.parameters())
    ]
    if len(found) != 1:
        raise ConfigError(f"The final norm of {source.name} ({type(model).__name__}) is not known here")
    return found[0]


def _name_of(module: nn.Module, model: Any) -> str:
    names: list[str] = [name for name, other in model.named_modules() if other is module]
    return names[0]


def _places(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor that is in this folder."""
    places: dict[str, Path] = {}
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        places = {name: folder / file for name, file in index.items()}
    for path in (folder / WHOLE, folder / HEAD):
        if path.exists():
            with safe_open(path, "pt") as file:
                places |= dict.fromkeys(file.keys(), path)
    return {name: path for name, path in places.items() if path.exists()}


def _fill(
    module: nn.Module, name: str, places: dict[str, Path], device: torch.device | str, source: ModelSource
) -> None:
    """Put the tensors of the module that is called `name` into `module`, in float32."""
    for parameter, empty in list(module.named_parameters()):
        found = _find(f"{name}.{parameter}", places)
        if found is None:
            raise ConfigError(
                f"The files of {source.name} on this machine lack its {name}.{parameter}: `kubesae truncate "
                "--with-head`, or the whole model, has it"
            )
        with safe_open(places[found], "pt") as file:
            tensor = file.get_tensor(found)
        if tensor.shape != empty.shape or not tensor.is_floating_point() or tensor.element_size() < 2:
            raise ConfigError(
                f"{found} of {source.name} is {tensor.dtype} {list(tensor.shape)}, where floats {list(empty.shape)} of "
                "16 bits at least are expected"
            )
        setattr(module, parameter, nn.Parameter(tensor.to(device, torch.float32), requires_grad=False))


def _find(name: str, places: dict[str, Path]) -> str | None:
    """Return what a checkpoint calls a tensor: it may leave the model's name out before it, or put one there."""
    parts = name.split(".")
    for first in range(len(parts) - 1):
        ending = ".".join(parts[first:])
        for other in places:
            if (other == ending or other.endswith(f".{ending}")) and not re.search(r"\.\d+\.", other):
                return other
    return None
