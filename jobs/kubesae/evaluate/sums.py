"""What evaluation measures of rows beside `sae.metrics`: how L0 is spread, and how much too short reconstructions are.

B = rows, D = d_model, F = features.

    L0 of a row     its number of features above 0
    shrinkage       gamma = argmin_g E|x - x_hat / g|^2 = E|x_hat|^2 / E[x . x_hat]; 1: unbiased, below: too short
                    (Rajamanoharan et al. 2024, arXiv 2404.16014, section 3: relative reconstruction bias)
    about the mean  the same of x - m and x_hat - m, with the mean m of x: a large mean, which b_dec gives, hides it
    norm ratio      E|x_hat| / E|x|
    cosine          mean over rows of x . x_hat / (|x| |x_hat|), 0 for rows of zeros

Sums are float64 and int64, and merge over batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kubesae.sae.kernels import Code


@dataclass(frozen=True, slots=True)
class RowSums:
    """Sums over rows; `a + b` is the same as the sums over both sets of rows.

    Attributes:
        rows: int64 scalar.
        x_D: float64 sum of x.
        x_hat_D: float64 sum of x_hat.
        x_squared: float64 sum of |x|^2.
        product: float64 sum of x . x_hat.
        x_hat_squared: float64 sum of |x_hat|^2.
        norm: float64 sum of |x|.
        x_hat_norm: float64 sum of |x_hat|.
        cosine: float64 sum of their cosines.
        with_l0: int64 [F + 1], rows with each L0.

    """

    rows: Tensor
    x_D: Tensor
    x_hat_D: Tensor
    x_squared: Tensor
    product: Tensor
    x_hat_squared: Tensor
    norm: Tensor
    x_hat_norm: Tensor
    cosine: Tensor
    with_l0: Tensor

    @classmethod
    def zero(cls, d_model: int, d_sae: int) -> RowSums:
        """Return the sums over no rows."""
        empty_BD = torch.zeros(0, d_model)
        return cls.of(empty_BD, empty_BD, torch.zeros(0, dtype=torch.int64), d_sae)

    @classmethod
    def of(cls, x_BD: Tensor, x_hat_BD: Tensor, l0_B: Tensor, d_sae: int) -> RowSums:
        """Return the sums over a batch, its reconstruction in the same units, and the L0 of its rows, int64 [B]."""
        x_BD, x_hat_BD = x_BD.double(), x_hat_BD.double()
        product_B = torch.linalg.vecdot(x_BD, x_hat_BD)
        norm_B, x_hat_norm_B = (torch.linalg.vector_norm(rows_BD, dim=1) for rows_BD in (x_BD, x_hat_BD))
        both_B = norm_B * x_hat_norm_B
        return cls(
            torch.tensor(len(x_BD)),
            x_BD.sum(0),
            x_hat_BD.sum(0),
            norm_B.square().sum(),
            product_B.sum(),
            x_hat_norm_B.square().sum(),
            norm_B.sum(),
            x_hat_norm_B.sum(),
            torch.where(both_B > 0, product_B / both_B, 0.0).sum(),
            torch.bincount(l0_B, minlength=d_sae + 1),
        )

    def __add__(self, other: RowSums) -> RowSums:
        """Return the sums over the rows of both."""
        return RowSums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def shrinkage(self) -> float | None:
        """Return gamma; None where no reconstruction is along its row."""
        return ratio(self.x_hat_squared, self.product)

    def shrinkage_about_mean(self) -> float | None:
        """Return gamma of x - m and x_hat - m, where m is the mean of x."""
        m_D = self.x_D / self.rows
        x_hat_squared = self.x_hat_squared - 2 * (m_D @ self.x_hat_D) + self.rows * m_D.square().sum()
        return ratio(x_hat_squared, self.product - m_D @ self.x_hat_D)  # the other two terms cancel

    def norm_ratio(self) -> float | None:
        """Return E|x_hat| / E|x|; None where all rows are zeros."""
        return ratio(self.x_hat_norm, self.norm)

    def mean_cosine(self) -> float | None:
        """Return the mean cosine of a row and its reconstruction; None of no rows."""
        return ratio(self.cosine, self.rows)


def l0_of(code: Code) -> Tensor:
    """Return the L0 of each row of a code, int64 [B]; entries that are 0 do not count."""
    return code.positive().offsets_B1.diff()


def ratio(a: Tensor, b: Tensor) -> float | None:
    """Return a / b, or None where that is no number."""
    quotient = float(a / b)
    return quotient if math.isfinite(quotient) else None
