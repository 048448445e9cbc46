"""In which dtype large products are made: by a declared rule, so that two runs on one machine never differ."""

from __future__ import annotations

import torch


def matmul_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of large products on `device`: bfloat16 where the hardware multiplies it faster, else float32.

    The rule is declared, not measured: any CUDA device, and CPUs with AVX512-BF16 or AMX instructions (2x and 7x the
    float32 rate). Sums, weights and optimiser state of training stay float32.
    """
    if device.type == "cuda":
        return torch.bfloat16
    have = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    fast = have.get("avx512_bf16") or have.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32
