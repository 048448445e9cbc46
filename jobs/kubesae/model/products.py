"""Products of bfloat16 on CPUs without instructions for it: multiplied in float32, which is seven times as fast there.

torch goes through such a product number by number. A product of two bfloat16 is exact in float32, and sums are kept in
float32 where there are instructions, too; so what comes out is rounded from the same sums, in another order.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kubesae.precision import matmul_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FEW_ROWS = 4
"""rows below which reading the weights is what takes time: as bfloat16 they are half as many bytes"""

_PIECE = 1 << 24
"""weights that are there as float32 at a time: 64 MB"""


def in_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of `dtype` on `device` are made in float32: bfloat16 on an x86 CPU that does not multiply it."""
    slow = platform.machine().lower() in {"x86_64", "amd64"} and matmul_dtype(device) == torch.float32
    return slow and device.type == "cpu" and dtype == torch.bfloat16


def quicken(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Let a model make its products in float32 where that is faster. Its weights and all it gives stay `dtype`."""
    if not in_float32(device, dtype):
        return
    for module in model.modules():
        multiplies = any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
        if multiplies and not isinstance(module, nn.Embedding):
            module.forward = _within(module.forward)


def _within(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def quick(*args: Any, **options: Any) -> Any:
        with _InFloat32():
            return forward(*args, **options)

    return quick


class _InFloat32(TorchFunctionMode):
    """Makes products of bfloat16 on the CPU in float32."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        quick = _QUICK.get(function)
        if quick is not None and options.keys() <= quick.options and _worth_it(args[quick.place : quick.place + 2]):
            return quick.product(*args, **options)
        return function(*args, **options)


def _worth_it(factors: Sequence[Tensor]) -> bool:
    slow = len(factors) == 2 and all(one.dtype == torch.bfloat16 and one.device.type == "cpu" for one in factors)
    return slow and factors[0].numel() >= _FEW_ROWS * factors[0].shape[-1]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias, [..., out]; weight is [out, in]."""
    wide = x.float()
    count = max(1, _PIECE // weight.shape[1])
    pieces = []
    for first in range(0, len(weight), count):
        part = slice(first, first + count)
        add = None if bias is None else bias[part].float()
        pieces.append(nn.functional.linear(wide, weight[part].float(), add).bfloat16())
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)


def _addmm(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return x @ weight + bias, as GPT-2 has it."""
    return _linear(x, weight.T, bias)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() @ b.float()).bfloat16()


def _grouped_mm(
    x: Tensor,
    weights: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the product of each run of rows of x, [rows, in], with its matrix of weights, [runs, in, out].

    Of other shapes it is torch's.

    Args:
        x: rows, those of a run one after the other.
        weights: one matrix a run.
        offs: where each run ends.
        bias: of each run, [runs, out].
        out_dtype: of the product, if not bfloat16.

    """
    if offs is None or weights.ndim != 3:
        return torch._grouped_mm(x, weights, offs=offs, bias=bias, out_dtype=out_dtype)  # noqa: SLF001
    ends = [0, *offs.tolist()]
    biases = [None] * len(weights) if bias is None else bias
    each = zip(ends, ends[1:], weights, biases, strict=False)  # there is an end more
    runs = [_linear(x[first:end], weight.T, add) for first, end, weight, add in each]
    return torch.cat([*runs, x.new_zeros(len(x) - ends[-1], weights.shape[2])]).to(out_dtype or x.dtype)


@dataclass(frozen=True, slots=True)
class _Quick:
    """What is made in float32: by `product`, where its factors are arguments `place` and the next, given by position.

    `options`: keyword arguments that `product` takes; with any other it is torch's.
    """

    product: Callable[..., Tensor]
    place: int = 0
    options: frozenset[str] = frozenset()


_QUICK: dict[Any, _Quick] = {
    nn.functional.linear: _Quick(_linear, options=frozenset({"bias"})),
    torch.addmm: _Quick(_addmm, place=1),
    torch.matmul: _Quick(_matmul),
    Tensor.matmul: _Quick(_matmul),
    Tensor.__matmul__: _Quick(_matmul),
    torch.bmm: _Quick(_matmul),
    # what torch's public one calls
    torch._grouped_mm: _Quick(_grouped_mm, options=frozenset({"offs", "bias", "out_dtype"})),  # noqa: SLF001
}
