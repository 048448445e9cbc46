"""Products in float32: as near to the exact ones as torch's own in bfloat16, and the engines agree on every bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from engine_outputs import CAPTURED, assert_equal, outputs, some_batches, source_of
from kubesae.model import products
from kubesae.model.resident import ResidentEngine
from kubesae.model.streamed import StreamedEngine
from tiny_models import ARCHITECTURES, save_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def slow_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this CPU for one that does not multiply bfloat16."""
    monkeypatch.setattr(products, "in_float32", lambda device, dtype: device == CPU and dtype == torch.bfloat16)


@pytest.fixture
def fast_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this CPU for one that does."""
    monkeypatch.setattr(products, "in_float32", lambda _device, _dtype: False)


class _Products(TorchFunctionMode):
    """Notes the dtype of each product."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in {"linear", "addmm", "matmul", "grouped_mm", "_grouped_mm"}:
            self.dtypes.add(args[1].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("machine", "capabilities", "device", "dtype", "expected"),
    [
        ("x86_64", {}, CPU, torch.bfloat16, True),
        ("AMD64", {}, CPU, torch.bfloat16, True),
        ("x86_64", {"avx512_bf16": True}, CPU, torch.bfloat16, False),
        ("x86_64", {"amx_bf16": True}, CPU, torch.bfloat16, False),
        ("x86_64", {}, CPU, torch.float32, False),
        ("x86_64", {}, GPU, torch.bfloat16, False),
        ("aarch64", {}, CPU, torch.bfloat16, False),
    ],
)
def test_which_cpus_need_it(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    capabilities: dict[str, bool],
    device: torch.device,
    dtype: torch.dtype,
    expected: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert products.in_float32(device, dtype) == expected


@pytest.mark.usefixtures("slow_cpu")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_engines_make_them_and_agree(tmp_path: Path, architecture: str) -> None:
    save_model(tmp_path, architecture)
    source = source_of(tmp_path)
    with _Products() as made:
        expected = outputs(ResidentEngine.load(source, CAPTURED, "bfloat16", "cpu"), some_batches())
    left = {"gemma", "bert"}  # Gemma's attention, which has no weights, and BERT's pooler, which has a row a context
    assert made.dtypes == {torch.float32} | ({torch.bfloat16} if architecture in left else set())
    assert_equal(outputs(StreamedEngine.load(source, CAPTURED, "bfloat16", "cpu"), some_batches()), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_further_from_the_exact_model_than_torch(
    request: pytest.FixtureRequest, tmp_path: Path, architecture: str
) -> None:
    save_model(tmp_path, architecture)
    source, batches = source_of(tmp_path), some_batches()
    exact = outputs(ResidentEngine.load(source, CAPTURED, "float32", "cpu"), batches)
    errors = {}
    for kind in ("fast_cpu", "slow_cpu"):
        request.getfixturevalue(kind)
        found = outputs(ResidentEngine.load(source, CAPTURED, "bfloat16", "cpu"), batches)
        assert all(output.dtype == torch.bfloat16 for output in found.values())
        errors[kind] = sum(float((found[key].float() - exact[key]).square().sum()) for key in exact)
    assert 0 < errors["slow_cpu"] < 1.2 * errors["fast_cpu"]


@pytest.mark.usefixtures("slow_cpu")
def test_large_weights_are_widened_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 50), nn.Linear(50, 7, bias=False)).bfloat16()
    x = torch.randn(2, 9, 16).bfloat16()
    products.quicken(model, CPU, torch.bfloat16)
    whole = model(x)
    monkeypatch.setattr(products, "_PIECE", 16 * 3)
    torch.testing.assert_close(model(x), whole, rtol=2**-8, atol=2**-8)
    assert whole.dtype == torch.bfloat16
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())


@pytest.mark.usefixtures("slow_cpu")
def test_few_rows_are_left_to_torch() -> None:
    model = nn.Linear(16, 8).bfloat16()
    x = torch.randn(3, 16).bfloat16()
    expected = model(x)
    products.quicken(model, CPU, torch.bfloat16)
    with _Products() as made:
        assert torch.equal(model(x), expected)
    assert made.dtypes == {torch.bfloat16}


@pytest.mark.usefixtures("slow_cpu")
@pytest.mark.parametrize(
    "multiply",
    [
        lambda x, w: nn.functional.linear(input=x, weight=w),
        lambda x, w: nn.functional.linear(x, weight=w),
        lambda x, w: torch.addmm(x, x, w, alpha=2),
        lambda x, w: torch.matmul(x, w, out=torch.empty_like(x)),
        lambda x, w: x @ w[0],
    ],
)
def test_products_that_are_called_otherwise_are_torchs(multiply: Callable[..., torch.Tensor]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(8).bfloat16(), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return multiply(x, self.weight)

    torch.manual_seed(0)
    model, x = Model(), torch.randn(8, 8).bfloat16()
    expected = model(x)
    products.quicken(model, CPU, torch.bfloat16)
    torch.testing.assert_close(model(x), expected)
