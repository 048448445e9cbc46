"""Memory that runs out, on a GPU or in the CPU allocator: how it shows, and one message for it. Imports no torch."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kubesae.errors import KubesaeError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
