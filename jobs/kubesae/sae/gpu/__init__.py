"""Triton kernels for tensors on CUDA devices in float32 (and bfloat16 where it is named).

`kernels.py` and `train/adam.py` get `launches` from `backend_for` where `usable` says so; elsewhere all is torch's.
Both give the same up to the order of sums. Nothing here loads triton before a tensor on a CUDA device is seen.

Equal inputs on equal machines give equal bits. No kernel adds by atomics: one program owns what it writes. Sizes of
blocks follow from shapes and are never tuned by timings, and addresses are multiples of 16 bytes, so that a shape has
one compiled form and with it one order of sums.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from typing import TYPE_CHECKING, cast

import torch

from kubesae.sae.gpu import prebuilt
from kubesae.sae.native.build import OFF

if TYPE_CHECKING:
    from torch import Tensor

# bytes that addresses have to be multiples of: those of one vector load
_ALIGNMENT = 16
# the oldest kind of GPU that the kernels are compiled for in tests
_OLDEST = (8, 0)


def usable(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """Return whether the kernels run here and take these tensors, of which there is one at least."""
    return (
        all(
            tensor.device.type == "cuda"
            and tensor.dtype in dtypes
            and tensor.is_contiguous()
            and tensor.data_ptr() % _ALIGNMENT == 0
            for tensor in tensors
        )
        and reason(tensors[0].device) is None
    )


def reason(device: torch.device) -> str | None:
    """Return why the kernels do not run on a CUDA device; None where they do. Only the first question is tried out."""
    index = cast("int | None", device.index)  # "cuda" has none, whatever torch's types say
    return _reason(torch.cuda.current_device() if index is None else index)


@cache
def _reason(index: int) -> str | None:
    if os.environ.get(OFF) == "0":
        return f"{OFF}=0 asks for none"
    if torch.version.hip is not None:  # which calls AMD's GPUs cuda too
        return "this torch is built for ROCm, not for CUDA"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    capability = torch.cuda.get_device_capability(index)
    if capability < _OLDEST:
        return f"the GPU is older than compute capability {_OLDEST[0]}.{_OLDEST[1]}: {capability[0]}.{capability[1]}"
    try:
        return _tried(torch.device("cuda", index))
    except Exception as error:  # noqa: BLE001 - triton, a C compiler or the driver: whatever it is, torch does without
        return f"the first kernel failed: {error!r}"[:500]


def _tried(device: torch.device) -> str | None:
    """Run one kernel, and return what is wrong with it.

    Triton compiles a small C file of its own before the first kernel, so a machine without a C compiler ends here,
    unless it is a Pod whose image has that file compiled.
    """
    prebuilt.take()
    launches = importlib.import_module("kubesae.sae.gpu.launches")
    offsets_S1, rows_N = torch.tensor([0, 2], device=device), torch.tensor([1, 0], device=device)
    weights_N, x_RD = torch.tensor([2.0, 1.0], device=device), torch.tensor([[1.0], [3.0]], device=device)
    found = launches.segment_sums(offsets_S1, rows_N, weights_N, x_RD).tolist()
    return None if found == [[7.0]] else f"the first kernel gave {found} for 7"
