"""The Triton kernels against torch: interpreted on the CPU, and with a GPU (`pytest -m gpu`) on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interpreted import Interpreter, adam_stepped, trained
from kubesae.sae import native
from kubesae.sae.kernels import ByFeature, Code, top_k
from kubesae.train import adam

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOATS = [torch.bfloat16, torch.float32]
# values with ties, both zeros, infinity, and the smallest float there is
VALUES = st.sampled_from([-2.0, -0.0, 0.0, 1e-45, 0.5, 1.0, 1.0078125, 1.5, float("inf")])
# 1: sums of values alone; 128: whole tiles; others: the last tile is filled in part
WIDTHS = [1, 5, 37, 128, 130, 576]
EXAMPLES = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def on_gpu(function: Any, *arguments: Any, **named: Any) -> Any:
    from kubesae.sae.gpu import launches

    def moved(value: Any, to: str) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(moved(part, to) for part in value)
        if isinstance(value, dict):
            return {name: moved(part, to) for name, part in value.items()}
        return value.to(to) if isinstance(value, torch.Tensor) else value

    call = getattr(launches, function) if isinstance(function, str) else function
    return moved(call(*moved(arguments, "cuda"), **named), "cpu")


@pytest.fixture(scope="module", params=["interpreted", pytest.param("gpu", marks=pytest.mark.gpu)])
def run(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give what calls a function of `launches` with tensors of the CPU."""
    if request.param == "gpu":
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        yield on_gpu
        return
    pytest.importorskip("triton")
    with Interpreter() as interpreter:
        yield interpreter


@pytest.fixture(autouse=True)
def torch_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compiled", lambda: None)


def randn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_code(rows: int, features: int, least: float = 1.0) -> Code:
    """Rows without an entry, features that no row has (the last), and one that all others have (the first)."""
    z_BF = randn(rows, features, seed=0)
    z_BF[:, 0] = z_BF[:, 0].abs() + least
    z_BF[:, -1] = -1
    z_BF[1::4] = -1
    return Code.of(z_BF, z_BF > least, torch.float32)


@pytest.mark.parametrize("dtype", FLOATS)
@EXAMPLES
@given(st.lists(st.lists(VALUES, min_size=70, max_size=70), min_size=1, max_size=3), st.integers(1, 9))
def test_the_k_largest_are_those_of_torch_ties_and_all(
    run: Any, dtype: torch.dtype, rows: list[list[float]], k: int
) -> None:
    z_BF = torch.tensor(rows, dtype=dtype)
    values_BK, features_BK = top_k(z_BF, k)
    features_BK, order_BK = features_BK.long().sort(1)
    mine_BK, mine_values_BK = run("largest", z_BF, k)
    assert torch.equal(mine_BK, features_BK)
    assert torch.equal(mine_values_BK, values_BK.float().gather(1, order_BK))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("features", "k"), [(5000, 17), (2048, 64), (33, 33), (1, 1)])
def test_the_k_largest_of_rows_of_several_blocks(run: Any, dtype: torch.dtype, features: int, k: int) -> None:
    z_BF = (randn(5, features) * torch.tensor([1.0, 1e-3, 1e3, 0.0, 1.0])[:, None]).to(dtype)
    z_BF[4] = 0.5  # a tie of all
    expected_BK = top_k(z_BF, k)[1].long().sort(1).values
    found_BK, values_BK = run("largest", z_BF, k)
    assert torch.equal(found_BK, expected_BK)
    assert torch.equal(values_BK, z_BF.relu().float().gather(1, expected_BK))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7FC00000, -1])
def test_a_training_that_diverged_still_has_k_features_a_row(run: Any, dtype: torch.dtype, bits: int) -> None:
    """A GPU's NaN has the greatest bits there are."""
    z_BF = torch.tensor([[bits] * 9], dtype=torch.int32).view(torch.float32).to(dtype)
    values_BK, features_BK = top_k(z_BF, 4)
    found_BK, found_values_BK = run("largest", z_BF, 4)
    assert found_BK.tolist() == features_BK.tolist() == [[0, 1, 2, 3]]
    torch.testing.assert_close(found_values_BK, values_BK.float(), equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("floor", [0.0, 0.3, 1e9])
@pytest.mark.parametrize("features", [70, 4100])
def test_entries_above_a_floor(run: Any, dtype: torch.dtype, floor: float, features: int) -> None:
    z_BF = randn(4, features).to(dtype)
    z_BF[1], z_BF[2, :5] = -1, floor
    found = Code(*run("entries_above", z_BF, floor))
    expected = Code.of(z_BF.float(), z_BF.float() > floor, torch.float32)
    for name in Code.__slots__:
        assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("width", WIDTHS)
def test_products_are_those_in_float64(run: Any, width: int) -> None:
    """70 rows have the first feature, more than a tile has lanes."""
    code, W_FD, g_BD = random_code(93, 21, 0.8), randn(21, width), randn(93, width)
    f_BF = code.dense(21).double()
    decoded_BD = run("segment_sums", code.offsets_B1, code.features_N, code.values_N, W_FD)
    torch.testing.assert_close(decoded_BD.double(), f_BF @ W_FD.double(), **CLOSE)
    dots_N = run("dots", code.offsets_B1, code.features_N, g_BD, W_FD)
    expected_N = (g_BD.double() @ W_FD.double().T)[code.rows_N, code.features_N]
    torch.testing.assert_close(dots_N.double(), expected_N, **CLOSE)
    offsets_F1, order_N, rows_N = run("by_feature", code.offsets_B1, code.features_N, 21)
    sums_FD = run("segment_sums", offsets_F1, rows_N, code.values_N[order_N], g_BD)
    torch.testing.assert_close(sums_FD.double(), f_BF.T @ g_BD.double(), **CLOSE)
    assert torch.equal(sums_FD[-1], torch.zeros(width))


def test_a_feature_of_very_many_rows(run: Any) -> None:
    """3,000 rows are some 190 rounds of a tile; the width of 1 has tiles of 256 entries."""
    rows, offsets_S1 = torch.arange(3000), torch.tensor([0, 0, 3000, 3000])
    for width in (1, 130):
        x_BD, weights_N = randn(3000, width), randn(3000, seed=2)
        found_SD = run("segment_sums", offsets_S1, rows, weights_N, x_BD)
        expected_D = weights_N.double() @ x_BD.double()
        torch.testing.assert_close(found_SD[1].double(), expected_D, rtol=1e-5, atol=1e-4)
        assert torch.equal(found_SD[[0, 2]], torch.zeros(2, width))


@EXAMPLES
@given(st.lists(st.lists(st.integers(0, 6), max_size=9), max_size=7))
def test_any_segments_of_any_rows(run: Any, segments: list[list[int]]) -> None:
    """A row may be in a segment several times, segments may be empty, and there may be none."""
    offsets_S1 = torch.tensor([0, *map(len, segments)]).cumsum(0)
    rows_N = torch.tensor([row for segment in segments for row in segment], dtype=torch.int64)
    weights_N, x_RD = torch.arange(1.0, len(rows_N) + 1), torch.arange(21.0).view(7, 3)
    expected = [
        sum((weights_N[j] * x_RD[rows_N[j]] for j in range(a, b)), torch.zeros(3))
        for a, b in zip(offsets_S1.tolist(), offsets_S1.tolist()[1:], strict=False)
    ]
    found_SD = run("segment_sums", offsets_S1, rows_N, weights_N, x_RD)
    assert torch.equal(found_SD, torch.stack(expected) if expected else torch.empty(0, 3))


@EXAMPLES
@given(st.lists(st.lists(st.integers(0, 6), unique=True), max_size=7))
def test_the_order_by_feature_is_that_of_torch(run: Any, rows: list[list[int]]) -> None:
    offsets_B1 = torch.tensor([0, *map(len, rows)]).cumsum(0)
    features_N = torch.tensor([feature for row in rows for feature in row], dtype=torch.int64)
    by = ByFeature(Code(offsets_B1, features_N, torch.ones(len(features_N))), 8)
    found = run("by_feature", offsets_B1, features_N, 8)
    for mine, expected in zip(found, (by._offsets_F1, by._order_N, by._rows_N), strict=True):
        assert torch.equal(mine, expected)


def test_nothing_gives_nothing(run: Any) -> None:
    none, offsets, no_rows = torch.empty(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), torch.empty(0, 5)
    assert run("largest", no_rows, 2)[0].shape == (0, 2)
    assert [len(part) for part in run("entries_above", no_rows, 0.0)] == [1, 0, 0]
    assert run("segment_sums", offsets, none, torch.empty(0), randn(3, 5)).shape == (0, 5)
    assert run("dots", offsets, none, no_rows, randn(3, 5)).shape == (0,)
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"k is {k}: it has to be from 1 to 5"):
            run("largest", no_rows, k)


def test_twice_the_same_and_any_order_within_a_row_give_equal_bits(run: Any) -> None:
    code, W_FD, g_BD = random_code(45, 60, 0.5), randn(60, 130), randn(45, 130)

    def gradients(code: Code) -> tuple[torch.Tensor, torch.Tensor]:
        offsets_F1, order_N, rows_N = run("by_feature", code.offsets_B1, code.features_N, 60)
        dots_N = run("dots", code.offsets_B1, code.features_N, g_BD, W_FD)
        return dots_N, run("segment_sums", offsets_F1, rows_N, code.values_N[order_N], g_BD)

    dots_N, sums_FD = gradients(code)
    assert all(map(torch.equal, gradients(code), (dots_N, sums_FD)))
    shuffled = torch.randperm(len(code.values_N), generator=torch.Generator().manual_seed(3))
    order_N = shuffled[code.rows_N[shuffled].argsort(stable=True)]  # anywhere within its row
    again = gradients(Code(code.offsets_B1, code.features_N[order_N], code.values_N[order_N]))
    assert torch.equal(again[0], dots_N[order_N])
    assert torch.equal(again[1], sums_FD)


def test_a_segment_does_not_depend_on_the_others(run: Any) -> None:
    code, W_FD = random_code(9, 60, 0.5), randn(60, 37)
    all_BD = run("segment_sums", code.offsets_B1, code.features_N, code.values_N, W_FD)
    begin, end = code.offsets_B1[6:8].tolist()
    entries = slice(begin, end)
    alone_BD = run(
        "segment_sums", torch.tensor([0, end - begin]), code.features_N[entries], code.values_N[entries], W_FD
    )
    assert torch.equal(alone_BD[0], all_BD[6])


@pytest.mark.parametrize("width", [1, 37, 1030])
def test_statistics_of_rows(run: Any, width: int) -> None:
    g_FD, W_FD = randn(7, width), randn(7, width, seed=2)
    squares_F, along_F = run("row_statistics", g_FD, W_FD)
    torch.testing.assert_close(squares_F, g_FD.square().sum(1), **CLOSE)
    torch.testing.assert_close(along_F, (g_FD * W_FD).sum(1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("unit", [False, True], ids=["free", "unit rows"])
@pytest.mark.parametrize("width", [1, 37, 1030])
def test_a_step_of_adam(run: Any, width: int, *, unit: bool) -> None:
    W_FD = torch.nn.functional.normalize(randn(7, width), dim=1)
    state = W_FD, randn(7, width, seed=2), randn(7, width, seed=3), randn(7, width, seed=4).square()
    along_F = (state[0] * state[1]).sum(1) if unit else None
    rate, betas, epsilon, correct = 0.01, (0.5, 0.95), adam.EPSILON, 1.3
    found = run(adam_stepped, state, along_F, rate=rate, betas=betas, epsilon=epsilon, correct=correct)
    W, g, m, v = (tensor.double() for tensor in state)
    if along_F is not None:
        g -= along_F.double()[:, None] * W
    m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g.square()
    W -= rate * m / (v.sqrt() * correct + epsilon)
    if unit:
        W /= W.norm(dim=1, keepdim=True)
    for mine, expected in zip(found, (W, m, v), strict=True):
        torch.testing.assert_close(mine.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_training_is_that_of_torch_and_goes_on_bit_for_bit(run: Any, dtype: torch.dtype) -> None:
    width, features, k = 12, 16, 3
    W_FD = torch.nn.functional.normalize(randn(features, width), dim=1)
    weights = W_FD.clone(), torch.zeros(features), W_FD, torch.zeros(width)
    zeros = tuple(map(torch.zeros_like, weights))
    start = {"w": weights, "m": zeros, "v": zeros, "steps": 0}
    batches = [randn(10, width, seed=seed) for seed in range(3)]
    whole = run(trained, batches, start, k, dtype=dtype, triton=True)
    for mine, expected in zip(whole["w"], trained(batches, start, k, dtype=dtype, triton=False)["w"], strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
    half = run(trained, batches[:1], start, k, dtype=dtype, triton=True)
    resumed = run(trained, batches[1:], half, k, dtype=dtype, triton=True)
    for group in ("w", "m", "v"):
        assert all(map(torch.equal, whole[group], resumed[group]))
