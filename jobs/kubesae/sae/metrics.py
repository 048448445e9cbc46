"""How good an SAE is: one formula for each metric, as sums that merge over batches and ranks.

B = rows, D = d_model, F = features.

    FVU         sum |x - x_hat|^2 / sum |x - mean|^2, one mean over the same rows (0 perfect, 1 no better than the mean)
    L0          mean number of features above 0 in a row
    dead share  share of features that were above 0 in no row
    PCA FVU     the FVU of the best linear reconstruction of rank R of the same rows

Sums are float64. The mean of ratios, the variance of x - x_hat (blind to a constant error) and the mean of each batch
are other formulas that look like FVU; none of them is used. PCA's FVU stands beside the SAE's because data with a few
dominant directions makes any FVU look good.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PCA_RANK = 32


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over rows from which the metrics follow. `a + b` is the same as the sums over both sets of rows.

    Attributes:
        rows: int64 scalar.
        x_D: float64 sum of x.
        x_squared: float64 sum of |x|^2.
        error_squared: float64 sum of |x - x_hat|^2.
        active_F: int64, in how many rows each feature was above 0.

    """

    rows: Tensor
    x_D: Tensor
    x_squared: Tensor
    error_squared: Tensor
    active_F: Tensor

    @classmethod
    def zero(cls, d_model: int, d_sae: int, device: torch.device | str = "cpu") -> Sums:
        """Return the sums over no rows."""
        return cls(
            torch.zeros((), dtype=torch.int64, device=device),
            torch.zeros(d_model, dtype=torch.float64, device=device),
            torch.zeros((), dtype=torch.float64, device=device),
            torch.zeros((), dtype=torch.float64, device=device),
            torch.zeros(d_sae, dtype=torch.int64, device=device),
        )

    @classmethod
    def of(cls, x_BD: Tensor, x_hat_BD: Tensor, active_F: Tensor) -> Sums:
        """Return the sums over a batch and its reconstruction, which must be in the same units."""
        x_BD = x_BD.double()
        return cls(
            torch.tensor(len(x_BD), device=x_BD.device),
            x_BD.sum(0),
            x_BD.square().sum(),
            (x_BD - x_hat_BD).square().sum(),
            active_F,
        )

    def __add__(self, other: Sums) -> Sums:
        """Return the sums over the rows of both."""
        return Sums(*(a + b for a, b in zip(self.tensors(), other.tensors(), strict=True)))

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the sums in the order of the fields, to be reduced over ranks."""
        return (self.rows, self.x_D, self.x_squared, self.error_squared, self.active_F)

    def fvu(self) -> float:
        """Fraction of variance unexplained."""
        variance = self.x_squared - self.x_D.square().sum() / self.rows
        return float(self.error_squared / variance)

    def mse(self) -> float:
        """Mean over rows and dimensions of (x - x_hat)^2, in the units of x."""
        return float(self.error_squared / (self.rows * len(self.x_D)))

    def l0(self) -> float:
        """Mean number of active features of a row."""
        return float(self.active_F.sum() / self.rows)

    def dead_share(self) -> float:
        """Share of features active in none of the rows."""
        return float((self.active_F == 0).double().mean())


@dataclass(frozen=True, slots=True)
class Covariance:
    """Sum of x x^T in float64, for the FVU of PCA. It costs 2 d_model^2 operations a row and d_model^2 doubles."""

    rows: Tensor
    x_D: Tensor
    xx_DD: Tensor

    @classmethod
    def zero(cls, d_model: int, device: torch.device | str = "cpu") -> Covariance:
        """Return the sums over no rows."""
        return cls(
            torch.zeros((), dtype=torch.int64, device=device),
            torch.zeros(d_model, dtype=torch.float64, device=device),
            torch.zeros(d_model, d_model, dtype=torch.float64, device=device),
        )

    def add(self, x_BD: Tensor) -> None:
        """Take in the rows `x_BD`, in place."""
        x_BD = x_BD.double()
        self.rows.add_(len(x_BD))
        self.x_D.add_(x_BD.sum(0))
        self.xx_DD.addmm_(x_BD.T, x_BD)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the sums in the order of the fields, to be reduced over ranks."""
        return (self.rows, self.x_D, self.xx_DD)

    def pca_fvu(self, rank: int = PCA_RANK) -> float:
        """Return the FVU of the reconstruction from the first `rank` principal components of the rows taken in."""
        centred_DD = self.xx_DD - torch.outer(self.x_D, self.x_D) / self.rows
        eigenvalues = torch.linalg.eigvalsh(centred_DD).clamp_min(0)
        return float(eigenvalues[:-rank].sum() / eigenvalues.sum())
