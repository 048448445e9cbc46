"""Run a program to its end, and say what it said if it fails."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from harness.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import IO


def run(
    command: Sequence[str | Path],
    *,
    text: str | None = None,
    stream: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    check: bool = True,
) -> str:
    """Return what `command` writes to stdout, given `text` or the file `stream` as stdin.

    Raises:
        ClusterError: it does not end within `timeout` seconds, or ends with an error while `check` is set.

    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=None if text is None else text.encode(),
            stdin=stream if text is None else None,
            capture_output=True,
            env=env,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`{' '.join(words)}` did not end within {timeout:.0f} s") from None
    output = done.stdout.decode(errors="replace")
    if check and done.returncode:
        said = (done.stderr.decode(errors="replace") + output).strip()
        raise ClusterError(f"`{' '.join(words)}` ended with {done.returncode}: {said[-4000:]}")
    return output
