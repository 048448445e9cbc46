"""Which kernels take a tensor, why the Triton ones may not, and that they compile for GPUs that are not here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kubesae.sae import gpu, native
from kubesae.sae.backend import backend_for, backend_name

if TYPE_CHECKING:
    from pathlib import Path

CUDA = torch.device("cuda", 0)
FLOATS = [torch.bfloat16, torch.float32]
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64"}


def test_tensors_of_the_cpu_go_to_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, 3)
    assert backend_for(x.double()) is None
    assert backend_for(x.to("meta")) is None
    assert not gpu.usable(x)
    monkeypatch.setattr(native, "compiled", lambda: None)
    assert backend_for(x) is None
    assert backend_name(torch.device("cpu")) == "torch"
    monkeypatch.setattr(native, "compiled", object)
    assert backend_for(x) is native
    assert backend_name(torch.device("cpu")) == "native"


def test_nothing_loads_triton_without_a_gpu() -> None:
    code = """
import sys, torch
import kubesae, kubesae.train.run, kubesae.sae.kernels as k
x = torch.ones(4, 6)
code = k.top_k_code(x, 2)
k.ByFeature(code, 6).sum(code.values_N, k.decode(code, torch.ones(6, 4)))
print("triton" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


class OnGpu:
    """What `usable` asks of a tensor."""

    device = CUDA

    def __init__(self, dtype: torch.dtype = torch.float32, address: int = 512, *, contiguous: bool = True) -> None:
        self.dtype, self._address, self._contiguous = dtype, address, contiguous

    def data_ptr(self) -> int:
        return self._address

    def is_contiguous(self) -> bool:
        return self._contiguous


def test_tensors_of_a_gpu_go_to_triton_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from kubesae.sae.gpu import launches

    monkeypatch.setattr(gpu, "reason", lambda _: None)
    assert backend_for(OnGpu()) is launches
    assert backend_for(OnGpu(torch.bfloat16)) is None
    assert backend_for(OnGpu(torch.bfloat16), dtypes=tuple(FLOATS)) is launches
    assert backend_for(OnGpu(), torch.ones(2)) is None
    assert backend_for(OnGpu(address=516)) is None
    assert backend_for(OnGpu(contiguous=False)) is None
    assert backend_name(CUDA) == "triton"
    monkeypatch.setattr(gpu, "reason", lambda _: "it is Tuesday")
    assert backend_for(OnGpu()) is None
    assert backend_name(CUDA) == "torch"


def fail(_: torch.device) -> None:
    raise RuntimeError("Failed to find C compiler")


def test_why_a_gpu_gets_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last thing that can be wrong to the first."""
    why = gpu._reason.__wrapped__
    monkeypatch.delenv("KUBESAE_NATIVE", raising=False)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(gpu, "_tried", lambda _: None)
    assert why(0) is None
    monkeypatch.setattr(gpu, "_tried", fail)
    assert why(0) == "the first kernel failed: RuntimeError('Failed to find C compiler')"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert why(0) == "the GPU is older than compute capability 8.0: 7.5"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert why(0) == "triton is not installed"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert why(0) == "this torch is built for ROCm, not for CUDA"
    monkeypatch.setenv("KUBESAE_NATIVE", "0")
    assert why(0) == "KUBESAE_NATIVE=0 asks for none"


class Compiled:
    """In place of `launches._launch`: compiles the kernel for a kind of GPU, with the arguments that it would get."""

    def __init__(self, capability: int) -> None:
        self.capability = capability
        self.ptx: dict[str, list[str]] = {}

    def __call__(self, kernel: Any, _: tuple[int, ...], *arguments: Any, num_warps: int, **constants: int) -> None:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        kinds, known = dict.fromkeys(constants, "constexpr"), dict(constants)
        whole = {}  # what is a multiple of 16
        for i, (name, argument) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
            if argument is None:
                kinds[name], known[name] = "constexpr", None
            elif isinstance(argument, torch.Tensor):
                kinds[name] = POINTERS[argument.dtype]
            else:
                kinds[name] = "i32" if isinstance(argument, int) else "fp32"
            if isinstance(argument, torch.Tensor) or (isinstance(argument, int) and argument % 16 == 0):
                whole[i,] = [["tt.divisibility", 16]]
        kinds = {name: kinds[name] for name in kernel.arg_names}
        options = {"num_warps": num_warps, "enable_fp_fusion": True}
        source, target = ASTSource(kernel, kinds, known, whole), GPUTarget("cuda", self.capability, 32)
        compiled = triton.compile(source, target=target, options=options)
        assert compiled.asm["cubin"]
        self.ptx.setdefault(kernel.__name__, []).append(compiled.asm["ptx"])
        if kernel.__name__ == "count_above":  # its caller reads what it writes
            arguments[1].fill_(1)


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_the_kernels_compile_for_gpus(capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To machine code, by the assembler that triton brings, with the launches' own arguments; none uses atomics."""
    pytest.importorskip("triton")
    from kubesae.sae.gpu import launches

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled = Compiled(capability)
    monkeypatch.setattr(launches, "_launch", compiled)
    offsets_S1, numbers_N, weights_N = torch.tensor([0, 2, 3]), torch.zeros(3, dtype=torch.int64), torch.ones(3)
    for width in (1, 577, 4096):
        x_RD = torch.ones(2, width)
        launches.segment_sums(offsets_S1, numbers_N, weights_N, x_RD)
        launches.dots(offsets_S1, numbers_N, x_RD, x_RD)
        launches.row_statistics(x_RD, x_RD)
        for along_F in (None, torch.ones(2)):
            launches.adam_step(*[x_RD] * 4, along_F, rate=0.1, betas=(0.5, 0.95), epsilon=1e-9, correct=1.0)
    for dtype in FLOATS:
        z_BF = torch.ones(2, 16384, dtype=dtype)
        launches.largest(z_BF, 32)
        launches.entries_above(z_BF, 0.3)
    kernels = {"segment_sums", "dots", "row_statistics", "adam", "largest", "count_above", "entries_above"}
    assert compiled.ptx.keys() == kernels
    for ptx in [ptx for forms in compiled.ptx.values() for ptx in forms]:
        assert "st.global" in ptx
        assert not re.search(r"\b(atom|red)\.", ptx)
