"""How this process asks the system for memory: a training step takes and gives back the same large tensors every time.

As it stands the C library maps fresh pages for each and unmaps them after, 4 kB at a time: at 16,384 features of width
1,024 that is a quarter of a step. Imports no torch, which reads its setting at the first tensor.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT = 1 << 30


def keep_memory() -> None:
    """Let blocks up to 1 GB come from what was freed before, and take large ones in pages of 2 MB."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others have none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT)
        mallopt(_TRIM_THRESHOLD, 2 * _KEPT)
