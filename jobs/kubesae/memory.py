"""Memory of large tensors: how it is kept between steps; how it shows that it runs out, and one message for that.

Imports no torch, which reads its settings at the first tensor.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kubesae.errors import KubesaeError

if TYPE_CHECKING:
    from collections.abc import Iterator

# of mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30


def keep_memory() -> None:
    """Let blocks up to 1 GB come from what this process freed before, and take large ones in pages of 2 MB.

    A training step takes and gives back the same large tensors every time, and so does encoding. As it stands the C
    library maps fresh pages for each and unmaps them after, 4 kB at a time: with 16,384 features of width 1,024 that is
    a quarter of a step.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others have none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT)
        mallopt(_TRIM_THRESHOLD, 2 * _KEPT)


def give_back() -> None:
    """Give the kernel what this process freed: tensors that live long keep the C library from doing it by itself."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others have none
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on a GPU or in the CPU allocator."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # torch has a class for its GPUs only; of its CPU allocator, and of safetensors, the text is all there is
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or any(
        words in text for words in ("can't allocate memory", "cannot allocate memory")
    )


@contextmanager
def memory_for(what: str, mend: str) -> Iterator[None]:
    """Turn memory that runs out in the body into a KubesaeError that says for `what` and how to `mend` it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, KubesaeError) or not is_out_of_memory(error):
            raise
        raise KubesaeError(f"Memory ran out for {what} ({reason_of(error)}). {mend}") from error


def reason_of(error: BaseException) -> str:
    """Return the first line of what the allocator says, or the error's name."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
