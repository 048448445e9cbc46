"""The Triton kernels on the CPU, by Triton's interpreter: in a process of its own, where all of triton is interpreted.

    with Interpreter() as interpreter:
        out_SD = interpreter("segment_sums", offsets_S1, rows_N, weights_N, x_RD)

What is decorated when triton is loaded is interpreted or compiled for good, triton's own functions included; so this
cannot be switched in the process of the tests.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Interpreter:
    """Calls functions of `kubesae.sae.gpu.launches`, or others, in the other process."""

    def __enter__(self) -> Self:
        """Start the process at the first call."""
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._pool.shutdown()

    def __call__(self, function: str | Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Return what the function gives for copies of these arguments; a name is one of `launches`."""
        with patch.dict(os.environ, {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}):
            done = self._pool.submit(_call, function, _apart(arguments), _apart(named))
        return _whole(done.result())


@dataclass(frozen=True)
class _Numbers:
    """A tensor's bytes: tensors between processes would share memory."""

    data: bytearray
    dtype: Any
    shape: tuple[int, ...]


def _apart(value: Any) -> Any:
    """Return a value with bytes in place of tensors."""
    import torch

    if isinstance(value, torch.Tensor):
        data = bytearray(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return _Numbers(data, value.dtype, tuple(value.shape))
    return _each(_apart, value)


def _whole(value: Any) -> Any:
    """Return a value with tensors in place of their bytes."""
    import torch

    if isinstance(value, _Numbers):
        flat = torch.frombuffer(value.data, dtype=value.dtype) if value.data else torch.empty(0, dtype=value.dtype)
        return flat.view(value.shape)
    return _each(_whole, value)


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {name: change(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(change(item) for item in value)
    return value


def _call(function: str | Callable[..., Any], arguments: Any, named: Any) -> Any:
    from kubesae.sae.gpu import launches

    call = getattr(launches, function) if isinstance(function, str) else function
    return _apart(call(*_whole(arguments), **_whole(named)))


def adam_stepped(tensors: tuple[Any, ...], along_F: Any, **named: Any) -> tuple[Any, ...]:
    """Return weights and both moments after one step of Adam, of (W, g, m, v)."""
    from kubesae.sae.gpu import launches

    launches.adam_step(*tensors, along_F, **named)
    return tensors[0], tensors[2], tensors[3]


def trained(batches: list[Any], state: dict[str, Any], k: int, *, dtype: Any, triton: bool) -> dict[str, Any]:
    """Return the state of a TopK SAE after a step on each of these batches; triton: by these kernels, else by torch.

    State: weights and moments by their names in a checkpoint, and `steps`.
    """
    import torch

    from kubesae.sae import Weights, backend
    from kubesae.sae.auxk import AuxK
    from kubesae.sae.step import Batch
    from kubesae.sae.topk import loss_and_gradients
    from kubesae.train.adam import BETAS_OF_K, Adam

    def by_triton(*tensors: torch.Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> Any:
        return backend._triton() if all(t.is_contiguous() and t.dtype in dtypes for t in tensors) else None

    chosen = by_triton if triton else lambda *_, **__: None
    weights, *moments = (Weights(*(tensor.clone() for tensor in state[name])) for name in ("w", "m", "v"))
    adam = Adam(weights, unit_decoder=True, betas=BETAS_OF_K)
    adam.moments, adam.square_moments = moments
    adam.start_at(state["steps"])
    with patch("kubesae.sae.kernels.backend_for", chosen), patch("kubesae.train.adam.backend_for", chosen):
        for x_BD in batches:
            auxk = AuxK(1 / 32, torch.tensor([0, 5, 7]), 3, 2)
            step = loss_and_gradients(x_BD, weights, k, auxk, Batch(len(x_BD), dtype))
            adam.step(step.gradients, 1e-3, 1.0)
    w, m, v = (tuple(group) for group in (weights, adam.moments, adam.square_moments))
    return {"w": w, "m": m, "v": v, "steps": state["steps"] + len(batches)}
