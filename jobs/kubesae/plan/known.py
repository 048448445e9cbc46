"""Where a model's config comes from: a folder, the list of known models that this package carries, or the hub.

The list holds what published configs say about shape, so that a plan needs neither network nor a token for models that
the hub gives only to those who ask. A pinned `model_revision` is always looked up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubesae.errors import ConfigError
from kubesae.hub import loading

if TYPE_CHECKING:
    from kubesae.experiment import Experiment

_MEND = "Give the id of a model that the hub has and gives you (HF_TOKEN), or a folder in the Hugging Face format."


@dataclass(frozen=True)
class ModelConfig:
    """A model's config.json.

    Attributes:
        name: of the model.
        origin: where it came from, in words.
        values: its fields.
        path: hub id or folder; None: it is of the list of known models.

    """

    name: str
    origin: str
    values: dict[str, Any]
    path: str | None = None

    @property
    def stored(self) -> str:
        """Dtype of the checkpoint, where it is not packed."""
        text = self.values.get("text_config") or {}
        for values in (self.values, text):
            if found := values.get("dtype") or values.get("torch_dtype"):
                return str(found)
        return "bfloat16"


@dataclass(frozen=True)
class KnownModel:
    """An entry of the list: hub ids that share a shape, where that was published, and what is published of its size."""

    ids: tuple[str, ...]
    source: str
    url: str
    published: dict[str, Any]
    config: dict[str, Any]


@cache
def known_models() -> dict[str, KnownModel]:
    """Return the list, by short name."""
    found = {}
    for file in sorted(files(__package__).joinpath("models").iterdir(), key=lambda file: file.name):
        values = json.loads(file.read_text(encoding="utf-8"))
        found[file.name.removesuffix(".json")] = KnownModel(**values | {"ids": tuple(values["ids"])})
    return found


def find_config(experiment: Experiment) -> ModelConfig:
    """Return the config of the experiment's model.

    Raises:
        ConfigError: there is no such model.
        HubError: the hub does not answer.

    """
    folder = Path(experiment.model).expanduser()
    if folder.is_dir():
        return ModelConfig(
            folder.resolve().name, "config.json of the folder", _read(folder / "config.json"), str(folder)
        )
    if experiment.model_revision is None:
        for known in known_models().values():
            if experiment.model in known.ids:
                return ModelConfig(experiment.model, known.source, known.config)
    return _from_hub(experiment)


def _from_hub(experiment: Experiment) -> ModelConfig:
    model, revision = experiment.model, experiment.model_revision
    with loading(
        f"the config of model {model!r} (there is no such local folder)", _MEND, repository=model, revision=revision
    ):
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - an extra, and slow to import

        path = hf_hub_download(model, "config.json", revision=revision)
    return ModelConfig(model, "config.json of the hub", _read(Path(path)), model)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read the config {path}: {error}. {_MEND}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The config {path} holds {type(values).__name__}, not an object. {_MEND}")
    return values
