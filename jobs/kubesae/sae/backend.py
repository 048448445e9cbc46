"""Which compiled kernels take a tensor: C++ on CPUs (`native`), Triton on CUDA devices (`gpu`), or none: then torch.

B = rows, D = d_model, F = features, N = entries of a code, S = segments.

KUBESAE_NATIVE=0 switches both off.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

import torch

from kubesae.sae import gpu, native

if TYPE_CHECKING:
    from torch import Tensor


class Backend(Protocol):
    """What both have; `native` documents the arguments."""

    def largest(self, z_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return features and values of the k largest of each row after ReLU, both [B, k]."""

    def entries_above(self, z_BF: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return offsets [B + 1], features [N] and values [N] of the entries above `floor`."""

    def segment_sums(self, offsets_S1: Tensor, rows_N: Tensor, weights_N: Tensor, x_RD: Tensor) -> Tensor:
        """Return weighted sums [S, D] of rows of `x_RD`."""

    def dots(self, offsets_B1: Tensor, features_N: Tensor, g_BD: Tensor, W_FD: Tensor) -> Tensor:
        """Return for each entry [N] the product of its row and its feature's row."""

    def by_feature(self, offsets_B1: Tensor, features_N: Tensor, features: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return offsets [F + 1], entries [N] and their rows [N], sorted by feature."""

    def row_statistics(self, g_FD: Tensor, W_FD: Tensor) -> tuple[Tensor, Tensor]:
        """Return |g_f|^2 and g_f . W_f, both [F]."""

    def adam_step(
        self,
        W_FD: Tensor,
        g_FD: Tensor,
        moment_FD: Tensor,
        square_moment_FD: Tensor,
        along_F: Tensor | None,
        *,
        rate: float,
        betas: tuple[float, float],
        epsilon: float,
        correct: float,
    ) -> None:
        """Take a step of Adam in place."""


def backend_for(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> Backend | None:
    """Return the kernels that take all of these tensors, of which there is one at least; None: torch has to."""
    if tensors[0].device.type == "cuda":
        return _triton() if gpu.usable(*tensors, dtypes=dtypes) else None
    return native if native.usable(*tensors, dtypes=dtypes) else None


def backend_name(device: torch.device) -> str:
    """Return what computes sparse products on `device`: `native`, `triton` or `torch`."""
    if device.type == "cuda":
        return "torch" if gpu.reason(device) else "triton"
    return "native" if device.type == "cpu" and native.compiled() else "torch"


def _triton() -> Backend:
    """Return the Triton kernels; the first call loads triton, which nothing without a GPU needs."""
    return cast("Backend", importlib.import_module("kubesae.sae.gpu.launches"))
