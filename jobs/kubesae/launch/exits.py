"""How each worker ended: a small file a worker, because torchrun turns every child's exit code into 1.

A worker that is killed leaves none. Files are named by local rank, of which every attempt of this node has the same,
and a worker removes the one of the attempt before it, so that what is there speaks of the last attempt. A user's
mistake stays: torchrun starts the workers anew whatever they died of, and such a one ends again at once.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae.errors import EXIT_DONE, EXIT_FAULT, EXIT_INTERRUPTED, EXIT_USER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# The environment variable by which a worker knows that it is one.
EXIT_FOLDER = "KUBESAE_EXIT_FOLDER"


@dataclass(frozen=True, slots=True)
class Exit:
    """A worker's end: its exit code, and the messages that it did not print itself."""

    rank: int
    code: int
    messages: tuple[str, ...]


def begin_worker() -> bool:
    """Forget how this worker's predecessor ended; False: by the user's mistake, which this one would make again."""
    file = _file()
    if file.exists() and _read(file).code == EXIT_USER:
        return False
    file.unlink(missing_ok=True)
    return True


def end_worker(code: int, messages: Sequence[str]) -> None:
    """Say how this worker ends; on a full disk nobody gets to know, and its end counts as a fault."""
    file = _file()
    written = file.with_suffix(".new")
    with suppress(OSError):
        content = {"rank": int(os.environ.get("RANK", "0")), "code": code, "messages": list(messages)}
        written.write_text(json.dumps(content), encoding="utf-8")
        written.replace(file)


def _file() -> Path:
    return Path(os.environ[EXIT_FOLDER]) / f"{os.environ.get('LOCAL_RANK', '0')}.json"


def read_exits(folder: Path) -> list[Exit]:
    """Return the ends of this node's workers, by rank."""
    return sorted(map(_read, folder.glob("*.json")), key=lambda end: end.rank)


def _read(file: Path) -> Exit:
    content = json.loads(file.read_text(encoding="utf-8"))
    return Exit(content["rank"], content["code"], tuple(content["messages"]))


def outcome(codes: Iterable[int], *, stopped: bool) -> int:
    """Return the one code that the codes of a node's workers mean; `stopped`: we were told to stop.

    A user's mistake outweighs all: where one worker finds it, the others lose their connection to it and fail. Where we
    were told to stop, workers that lose theirs to one that stopped first are no fault.
    """
    codes = set(codes)
    if EXIT_USER in codes:
        return EXIT_USER
    if stopped:
        return EXIT_INTERRUPTED
    if codes - {EXIT_DONE, EXIT_INTERRUPTED}:
        return EXIT_FAULT
    return EXIT_INTERRUPTED if EXIT_INTERRUPTED in codes else EXIT_DONE
