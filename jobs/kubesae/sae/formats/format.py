"""What a format of another library is to kubesae: how to write an SAE in it, and how to read one.

A format works on files in memory, by name: where they lie is the business of `exporting` and `importing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import torch

from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import validate
from kubesae.sae.config import SaeConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from kubesae.sae.inference import Sae
    from kubesae.sae.weights import Weights


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Attributes:
        name: as `--format` takes it, with the library's version that it was tested with as `version`.
        files: the names of its files, weights first: whoever finds the last one finds all.
        refusal: why the format cannot hold an SAE, None where it can.
        write: the content of each file, for an SAE that is not refused.
        read: an SAE from the content of each file and where it is from, for messages. Raises ConfigError for what
            kubesae has no form for, DamagedError for what is no SAE of this format.
        loading: the line of Python that loads a folder.

    """

    name: str
    version: str
    files: tuple[str, ...]
    refusal: Callable[[Sae], str | None]
    write: Callable[[Sae], dict[str, bytes]]
    read: Callable[[Mapping[str, bytes], str], Foreign]
    loading: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Foreign:
    """An SAE that was read: in raw units, and with our formulas (`kubesae.sae.files`).

    Attributes:
        config: what it is.
        weights: float32.
        threshold_F: float32 [d_sae], where the config has thresholds.
        kind: what the library calls it.
        notes: what somebody who uses it should know, a sentence each.

    """

    config: SaeConfig
    weights: Weights
    threshold_F: Tensor | None
    kind: str
    notes: tuple[str, ...] = field(default=())


class Tensors:
    """The tensors of a file, taken out one by one and looked at."""

    def __init__(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """`where`: the file's path or URL, for messages."""
        self._left = dict(tensors)
        self._where = where

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def shape(self, name: str) -> tuple[int, int]:
        """Return the shape of a matrix, which stays. Raises DamagedError: it is not there, or no matrix."""
        tensor = self._left.get(name)
        if tensor is None or tensor.dim() != 2:
            raise self._wrong(name, "a matrix", tensor)
        return tensor.shape[0], tensor.shape[1]

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a tensor as float32. Raises DamagedError: it is not there, of another shape, or not finite."""
        tensor = self._left.pop(name, None)
        if tensor is None or tuple(tensor.shape) != shape:
            raise self._wrong(name, f"shape {list(shape)}", tensor)
        tensor = tensor.to(torch.float32)
        if not torch.isfinite(tensor).all():
            raise DamagedError(f"{self._where}: {name} holds NaN or infinity. Get it again from where it was made.")
        return tensor

    def take_integers(self, name: str) -> list[int]:
        """Return a vector of whole numbers. Raises DamagedError: it is not there, or something else."""
        tensor = self._left.pop(name, None)
        if tensor is None or tensor.dim() != 1 or tensor.is_floating_point():
            raise self._wrong(name, "whole numbers", tensor)
        return [int(number) for number in tensor]

    def drop(self, name: str, only: float | None = None) -> None:
        """Leave out a tensor, if it is there, which an SAE in use does not need; with `only`, if it holds just that."""
        if name in self._left and (only is None or bool((self._left[name] == only).all())):
            del self._left[name]

    def end(self) -> None:
        """See that all were taken. Raises ConfigError: what is left would change what the SAE does."""
        if self._left:
            raise ConfigError(
                f"{self._where} holds {', '.join(sorted(self._left))} too, which an SAE of this kind does not have. "
                "Save it again in the library that made it, as the SAE to use."
            )

    def _wrong(self, name: str, wanted: str, found: Tensor | None) -> DamagedError:
        left = ", ".join(sorted(self._left)) or "none"
        has = f"there are only {left}" if found is None else f"it is {found.dtype} {list(found.shape)}"
        return DamagedError(
            f"{self._where}: there should be a tensor {name} with {wanted}, but {has}. Is it an SAE of this --format?"
        )


def make_config(architecture: str, where: str, **fields: Any) -> SaeConfig:
    """Return the config of an SAE that was read.

    Raises:
        ConfigError: this version of kubesae has no such architecture.

    """
    if architecture not in architectures():
        raise ConfigError(
            f"{where} is an SAE of architecture {architecture}, which this version of kubesae does not have "
            f"({', '.join(architectures())}). Import it with a newer version."
        )
    return validate(SaeConfig, {"architecture": architecture, **fields}, where)


def threshold_config(hint: object, d_model: int, d_sae: int, where: str, otherwise: str = "jumprelu") -> SaeConfig:
    """Return the config of an SAE with thresholds: by the hint that an export of ours left, else `otherwise`.

    Other libraries keep all such SAEs as JumpReLU. What the hint adds, k and prefixes, does not change what they do.
    """
    sizes = {"d_model": d_model, "d_sae": d_sae}
    if isinstance(hint, dict) and hint.get("architecture") in architectures():
        config = validate(SaeConfig, {**hint, **sizes}, where)
        # features may have been left out since
        whole = config.prefixes is None or config.prefixes[-1:] == (d_sae,)
        if config.has_threshold and whole:
            return config
    return make_config(otherwise, where, **sizes)


def architectures() -> tuple[str, ...]:
    """Return the architectures that this version has."""
    return get_args(SaeConfig.model_fields["architecture"].annotation)


def hint_of(config: SaeConfig) -> dict[str, Any]:
    """Return what `threshold_config` reads."""
    return config.model_dump(mode="json", include={"architecture", "k", "prefixes"})
