"""What formats share of reading: safetensors, and numbers that have to be there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch

from kubesae.errors import ConfigError, DamagedError
from kubesae.sae.formats.format import Tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

FLOATS = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


def parse_safetensors(data: bytes, where: str, dtype: torch.dtype | None = None) -> tuple[Tensors, tuple[str, ...]]:
    """Return the tensors of a safetensors file, and what to say of them.

    Args:
        data: the file.
        where: its path or URL, for messages.
        dtype: what the library rounds them to when it loads them; None: it does not.

    Raises:
        DamagedError: it is no such file.

    """
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise DamagedError(
            f"{where} is not a safetensors file ({error}). Get it again from where it was made."
        ) from error
    if dtype is not None:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    return Tensors(tensors, where), precision(tensors)


def precision(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return what to say where the weights are not float32."""
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} - {torch.float32}
    if not dtypes:
        return ()
    names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
    note = (
        f"Its weights are {names}; here they are float32, and so is everything that is computed with them. In its own "
        "library it differs by that library's rounding."
    )
    return (note,)


def positive(config: Mapping[str, Any], field: str, where: str, at_most: int | None = None) -> int:
    """Return a whole number above 0 of a config.

    Raises:
        ConfigError: it is not there, or not such a number. It is not guessed: libraries' own defaults differ.

    """
    value = config.get(field)
    if type(value) is not int or value < 1 or (at_most is not None and value > at_most):
        limit = "above 0" if at_most is None else f"from 1 to {at_most}"
        raise ConfigError(
            f"{where}: {field} is {value!r}, not a number {limit}. Give the folder of an SAE of this --format, as its "
            "library saved it."
        )
    return value
