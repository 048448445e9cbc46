"""The C++ of sparse products against the same in torch, and how it is found."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kubesae.sae import native
from kubesae.sae.kernels import ByFeature, Code, code_above, decode, dots, top_k, top_k_code
from kubesae.sae.native import build

if TYPE_CHECKING:
    from pathlib import Path

FLOATS = [torch.bfloat16, torch.float32]
# values with ties, both zeros, infinity, and the smallest float there is
VALUES = st.sampled_from([-2.0, -0.0, 0.0, 1e-45, 0.5, 1.0, 1.0078125, 1.5, float("inf")])

pytestmark = pytest.mark.skipif(native.compiled() is None, reason=f"no compiled kernels: {native.reason()}")


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def random_code(rows: int, features: int, seed: int = 0) -> Code:
    z_BF = torch.randn(rows, features, generator=torch.Generator().manual_seed(seed))
    z_BF[1::4] = -1  # rows without an entry
    return Code.of(z_BF, z_BF > 1, torch.float32)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", FLOATS)
@given(
    st.lists(st.lists(VALUES, min_size=70, max_size=70), min_size=1, max_size=6),
    st.integers(1, 9),
    st.sampled_from([1, 9]),
)
def test_the_k_largest_are_those_of_torch_ties_and_all(
    dtype: torch.dtype, rows: list[list[float]], k: int, times: int
) -> None:
    """Of short rows all that are positive are looked at, of long ones those above a floor."""
    z_BF = torch.tensor(rows, dtype=dtype).repeat(1, times)
    values_BK, features_BK = top_k(z_BF, k)
    features_BK, order_BK = features_BK.long().sort(1)
    mine_BK, mine_values_BK = native.largest(z_BF, k)
    mine_BK, mine_order_BK = mine_BK.sort(1)
    assert torch.equal(mine_BK, features_BK)
    assert torch.equal(mine_values_BK.gather(1, mine_order_BK), values_BK.float().gather(1, order_BK))


@pytest.mark.parametrize("k", [1, 17, 130, 3000])
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_k_largest_of_rows_that_are_not_alike(dtype: torch.dtype, k: int, threads: int) -> None:
    """Large ones, small ones, zeros, and rows of which fewer than k are positive."""
    del threads
    scale_B1 = torch.tensor([1.0, 1e-3, 1e3, 1e-3, 1.0, 0.0, 1.0] * 20)[:, None]
    z_BF = (randn(140, 3000) * scale_B1).to(dtype)
    z_BF[3::7, 10:] = -1
    code = top_k_code(z_BF, k)
    expected_BK = torch.topk(z_BF.float().relu(), k, dim=1).values
    assert torch.equal(code.values_N.view(140, k).sort(1, descending=True).values, expected_BK)
    taken_N = z_BF.float().relu()[code.rows_N, code.features_N]
    assert torch.equal(taken_N, code.values_N)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_entries_above_a_floor(dtype: torch.dtype, floor: float, threads: int) -> None:
    del threads
    z_BF = randn(9, 203).to(dtype)
    code, expected = code_above(z_BF, floor, torch.float32), Code.of(z_BF.float(), z_BF.float() > floor, torch.float32)
    for mine, other in zip(vars_of(code), vars_of(expected), strict=True):
        assert torch.equal(mine, other)


def vars_of(code: Code) -> tuple[torch.Tensor, ...]:
    return code.offsets_B1, code.features_N, code.values_N


def test_products_are_those_in_float64(threads: int) -> None:
    del threads
    code, W_FD, g_BD = random_code(13, 40), randn(40, 37), randn(13, 37)
    f_BF = code.dense(40).double()
    torch.testing.assert_close(decode(code, W_FD).double(), f_BF @ W_FD.double(), rtol=1e-5, atol=1e-5)
    expected_N = (g_BD.double() @ W_FD.double().T)[code.rows_N, code.features_N]
    torch.testing.assert_close(dots(code, g_BD, W_FD).double(), expected_N, rtol=1e-5, atol=1e-5)
    sums_FD = ByFeature(code, 40).sum(code.values_N, g_BD)
    torch.testing.assert_close(sums_FD.double(), f_BF.T @ g_BD.double(), rtol=1e-5, atol=1e-5)


def test_the_number_of_threads_changes_no_bit() -> None:
    code, W_FD, g_BD = random_code(50, 64), randn(64, 129), randn(50, 129)

    def all_of() -> list[torch.Tensor]:
        by = ByFeature(code, 64)
        return [
            decode(code, W_FD),
            dots(code, g_BD, W_FD),
            by.sum(code.values_N, g_BD),
            *native.row_statistics(W_FD, W_FD),
        ]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = all_of()
        torch.set_num_threads(4)
        assert all(map(torch.equal, alone, all_of()))
    finally:
        torch.set_num_threads(before)


def test_a_forked_child_has_threads_of_its_own() -> None:
    W_FD = randn(64, 16)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        native.row_statistics(W_FD, W_FD)
        child = os.fork()
        if child == 0:  # a hang would run into the test's time limit
            native.row_statistics(W_FD, W_FD)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)


def test_the_library_for_cpus_with_avx2_alone_computes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cpu.get_capabilities().get("avx2"):
        pytest.skip("this CPU has no AVX2")
    library = ctypes.CDLL(str(build.compile_for("x86-64-v3", tmp_path)))
    monkeypatch.setattr(native, "compiled", lambda: library)
    for dtype in FLOATS:
        test_the_k_largest_of_rows_that_are_not_alike(dtype, 17, 1)
        test_entries_above_a_floor(dtype, 0.3, 1)
    test_products_are_those_in_float64(1)
    test_the_number_of_threads_changes_no_bit()


def test_without_a_library_it_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    W_FD = randn(3, 4)
    assert native.usable(W_FD)
    assert not native.usable(W_FD.double())
    assert not native.usable(W_FD.T)
    assert not native.usable(W_FD.to("meta"))
    monkeypatch.setattr(native, "compiled", lambda: None)
    assert not native.usable(W_FD)


def why(environment: dict[str, str]) -> str:
    code = "from kubesae.sae import native; print(native.reason())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_it_is_compiled_once_into_the_cache(tmp_path: Path) -> None:
    assert why({"XDG_CACHE_HOME": str(tmp_path)}) == "None"
    (made,) = (tmp_path / "kubesae" / "native").iterdir()
    assert made.name == build.file_name(build._level())
    assert why({"XDG_CACHE_HOME": str(tmp_path), "CXX": "false"}) == "None"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"KUBESAE_NATIVE": "0"}, "KUBESAE_NATIVE=0 asks for none"),
        ({"CXX": "false"}, "false failed: "),
        ({"CXX": "", "PATH": "/nowhere"}, "there is no C++ compiler (g++)"),
        ({"CXX": "/no/such/compiler"}, "nothing can be compiled into "),
    ],
)
def test_why_there_is_none_is_said(tmp_path: Path, environment: dict[str, str], expected: str) -> None:
    assert expected.strip() in why({"XDG_CACHE_HOME": str(tmp_path), **environment})


def test_an_image_gets_a_file_for_each_kind_of_cpu(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    build.main([str(tmp_path)])
    assert build.file_name(build._level()) in {path.name for path in tmp_path.iterdir()}
