"""Sparse products against their dense counterparts, and the tie rule of top-k."""

from __future__ import annotations

import pytest
import torch

from kubesae.sae import kernels
from kubesae.sae.kernels import ByFeature, Code, decode, dots, feature_sums, top_k, top_k_code

BATCH, WIDTH, FEATURES = 7, 5, 11


def sparse(seed: int = 0) -> tuple[Code, torch.Tensor]:
    """A code with an empty row, a full row and an inactive entry, and the same code dense."""
    generator = torch.Generator().manual_seed(seed)
    f_BF = torch.rand(BATCH, FEATURES, generator=generator, dtype=torch.float64)
    f_BF[torch.rand(BATCH, FEATURES, generator=generator) < 0.7] = 0
    f_BF[2], f_BF[4] = 0, 1.5
    stored_BF = f_BF > 0
    stored_BF[0, 3] = True
    rows_N, features_N = torch.nonzero(stored_BF, as_tuple=True)
    offsets = torch.searchsorted(rows_N, torch.arange(BATCH + 1))
    return Code(offsets, features_N, f_BF[rows_N, features_N]), f_BF


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_dense_and_positive_keep_the_code() -> None:
    code, f_BF = sparse()
    torch.testing.assert_close(code.dense(FEATURES), f_BF)
    positive = code.positive()
    assert (positive.values_N > 0).all()
    assert len(positive.values_N) == (f_BF > 0).sum()
    torch.testing.assert_close(positive.dense(FEATURES), f_BF)


def test_decode_is_the_dense_product() -> None:
    code, f_BF = sparse()
    W_FD = random(FEATURES, WIDTH)
    torch.testing.assert_close(decode(code, W_FD), f_BF @ W_FD)


@pytest.mark.parametrize("dots_of", [dots, kernels._dots_gathered], ids=["cpu", "gathered"])
def test_dots_are_entries_of_the_dense_product(dots_of: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_GATHER_FLOATS", 8)
    code, _ = sparse()
    g_BD, W_FD = random(BATCH, WIDTH), random(FEATURES, WIDTH)
    expected_N = (g_BD @ W_FD.T)[code.rows_N, code.features_N]
    torch.testing.assert_close(dots_of(code, g_BD, W_FD), expected_N)


def test_sums_by_feature_are_the_transposed_product() -> None:
    code, f_BF = sparse()
    x_BD = random(BATCH, WIDTH)
    torch.testing.assert_close(ByFeature(code, FEATURES).sum(code.values_N, x_BD), f_BF.T @ x_BD)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_sums_of_values_by_feature(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    code, f_BF = sparse()
    code = Code(*(getattr(code, name).to(device) for name in Code.__slots__))
    torch.testing.assert_close(feature_sums(code, FEATURES).cpu(), f_BF.sum(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_top_k_takes_the_largest_after_relu(dtype: torch.dtype) -> None:
    z_BF = random(50, 200).to(dtype)
    values, features = top_k(z_BF, 9)
    expected = torch.topk(z_BF.relu(), 9, dim=1).values
    torch.testing.assert_close(values, expected, rtol=0, atol=0)
    torch.testing.assert_close(z_BF.relu().gather(1, features.long()), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_ties_go_to_the_lower_feature(dtype: torch.dtype) -> None:
    z_F = torch.tensor([-1.0, 2.0, 0.5, 2.0, 0.5, 3.0, 0.5, -0.0, 0.0], dtype=dtype)
    assert top_k(z_F[None], 5)[1].tolist() == [[5, 1, 3, 2, 4]]
    values, features = top_k(torch.tensor([[-1.0, -0.0, -2.0, 1.0]], dtype=dtype), 3)
    assert features.tolist() == [[3, 0, 1]]
    assert values.tolist() == [[1.0, 0.0, 0.0]]


def test_ties_do_not_depend_on_the_number_of_features() -> None:
    """Above 65,536 features a bfloat16 value and its number no longer fit 32 bits: another path, the same rule."""
    z_BF = torch.zeros(1, 70_000, dtype=torch.bfloat16)
    z_BF[0, [69_999, 66_000, 12]] = 1.5
    values, features = top_k(z_BF, 4)
    assert features.tolist() == [[12, 66_000, 69_999, 0]]
    assert values.tolist() == [[1.5, 1.5, 1.5, 0.0]]


def test_top_k_code_has_k_entries_a_row() -> None:
    z_BF = random(BATCH, FEATURES)
    code = top_k_code(z_BF, 3)
    assert code.offsets_B1.tolist() == list(range(0, 3 * BATCH + 1, 3))
    kept_BF = code.dense(FEATURES)
    assert ((kept_BF > 0).sum(1) == 3).all()
    torch.testing.assert_close(kept_BF[kept_BF > 0].double(), z_BF[kept_BF > 0].float().double())
