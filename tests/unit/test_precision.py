"""In which dtype large products are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.precision import matmul_dtype

if TYPE_CHECKING:
    import pytest


def test_matmul_dtype_follows_the_declared_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for capabilities, dtype in (
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda have=capabilities: have)
        assert matmul_dtype(cpu) == dtype
    assert matmul_dtype(torch.device("cuda")) == torch.bfloat16
