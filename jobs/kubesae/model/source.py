"""Which model: its public name, exact revision and shape, from its config alone.

A hub model's revision is the commit that the hub resolved. A local folder has as revision the SHA-256 over its config,
tokenizer and weight files, so that the same files give the same identity wherever they lie.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubesae.errors import ConfigError
from kubesae.experiment import canonical_json, sha256_hex
from kubesae.hub import MODEL_FILES, loading

if TYPE_CHECKING:
    from kubesae.experiment import Experiment

# Model types whose code comes with their repositories, and is that of one that transformers has.
SAME_AS = {"kimi_k2": "deepseek_v3"}


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded.

    Attributes:
        path: hub id or local folder, for `from_pretrained`.
        name: what identity calls it: the hub id, or the folder's name.
        revision: hub commit, or SHA-256 over the folder's files.
        config: its transformers config, whole (not truncated).
        trust_remote_code: whether code that its repository ships may run.

    """

    path: str
    name: str
    revision: str
    config: Any
    trust_remote_code: bool

    @property
    def text_config(self) -> Any:
        """The part of the config that describes the language model."""
        return self.config.get_text_config()

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.text_config.hidden_size)

    @property
    def num_layers(self) -> int:
        """Layers of the whole model."""
        return int(self.text_config.num_hidden_layers)

    @property
    def vocab_size(self) -> int:
        """Number of embeddings."""
        return int(self.text_config.vocab_size)


def resolve_model(experiment: Experiment, *, hashed: bool = True) -> ModelSource:
    """Find the experiment's model and check it against the experiment; no weight is read but to hash a local folder.

    With `hashed` false it is not hashed, which takes long for a large model: its revision is then unknown.

    Raises:
        ConfigError: there is no such model, or it has no such layer, or cannot hold such a context.

    """
    folder = Path(experiment.model).expanduser()
    local = folder.is_dir()
    wanted = None if local else experiment.model_revision
    with loading(
        f"the config of model {experiment.model!r}" + ("" if local else " (there is no such local folder)"),
        "Give the id of a model that the hub has and gives you (HF_TOKEN), or a folder in the Hugging Face format.",
        repository=None if local else experiment.model,
        revision=wanted,
    ):
        config = read_config(
            folder if local else experiment.model, wanted, trust_remote_code=experiment.trust_remote_code
        )
    revision = "unknown"
    if not local:
        revision = str(config._commit_hash)  # noqa: SLF001 - has no public name
    elif hashed:
        revision = _hash_folder(folder)
    name = folder.resolve().name if local else experiment.model
    source = ModelSource(
        str(folder) if local else experiment.model, name, revision, config, experiment.trust_remote_code
    )
    _check(experiment, source)
    return source


def read_config(path: Path | str, revision: str | None, *, trust_remote_code: bool) -> Any:
    """Return the transformers config of a folder or of the hub's model `path`."""
    from transformers import AutoConfig, PreTrainedConfig  # noqa: PLC0415 - seconds to import

    values, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    same = SAME_AS.get(values.get("model_type", ""))
    if same is None:
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    values = {name: value for name, value in values.items() if name != "auto_map"}
    return AutoConfig.for_model(**values | {"model_type": same})


def _hash_folder(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in MODEL_FILES)
    entries = []
    for path in files:
        with path.open("rb") as file:
            entries.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return sha256_hex(canonical_json(entries))


def _check(experiment: Experiment, source: ModelSource) -> None:
    if source.config.is_encoder_decoder:
        raise ConfigError(
            f"{experiment.model!r} is an encoder-decoder, which is not supported. Give a causal language model or an "
            "encoder."
        )
    if experiment.layers[-1] >= source.num_layers:
        raise ConfigError(
            f"Layer {experiment.layers[-1]} is out of range: {experiment.model!r} has layers 0 to "
            f"{source.num_layers - 1}. Set `layers` to some of these."
        )
    longest = getattr(source.text_config, "max_position_embeddings", None)
    if longest is not None and experiment.context > longest:
        raise ConfigError(
            f"`context` is {experiment.context}, but {experiment.model!r} takes at most {longest} tokens. Lower it."
        )
