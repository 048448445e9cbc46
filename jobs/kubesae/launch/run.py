"""Launch a training in a Pod: torchrun, and exit codes that what started the Pod understands.

    KUBESAE_TRAIN_BACKEND=pytorchjob kubesae train-launch experiment.yaml

| end of the workers | `job` | `pytorchjob` |
|---|---|---|
| done | 0 | 0 |
| the user's mistake | 2 | 2 |
| interrupted | 75 | 143 |
| fault | 1 | 143; 1 after the third start from the same checkpoint |

A Job retries by rules on exit codes. A PyTorchJob with `restartPolicy: ExitCode` takes codes up to 127 as final and
starts the Pod again for the others, without counting: that is what `starts` is for.
"""

from __future__ import annotations

import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae.errors import EXIT_DONE, EXIT_FAULT, EXIT_INTERRUPTED, KubesaeError
from kubesae.launch.exits import read_exits
from kubesae.launch.starts import ALLOWED
from kubesae.launch.torchrun import run_torchrun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kubesae.launch.exits import Exit
    from kubesae.launch.starts import Starts
    from kubesae.launch.torchrun import Ended

# 128 + SIGTERM: the Pod was stopped, start it again.
EXIT_AGAIN = 143
STOPPED = "kubesae: Stopped before the workers had begun to train: start again to go on from the last checkpoint."


def run_launch(
    arguments: Sequence[str],
    grace: float,
    starts: Starts | None,
    is_trained: Callable[[], bool],
    complain: Callable[[str], None],
) -> int:
    """Train, and return the exit code that the ends of the workers mean.

    Args:
        arguments: of `kubesae train`.
        grace: seconds that SIGTERM leaves for a last checkpoint.
        starts: counts starts without progress; None: the back-end counts.
        is_trained: says whether the store shows that there is nothing left to train.
        complain: takes what went wrong, a message each.

    Raises:
        Exception: torchrun failed before its workers began, or they could not be watched.

    """
    if starts and not starts.begin():
        complain(
            f"kubesae: {ALLOWED} starts from the same checkpoint ended without a new one; this is the last word. Look "
            "at what they said, mend it, and start the phase again: `kubesae retry train`."
        )
        return EXIT_FAULT
    with tempfile.TemporaryDirectory(prefix="kubesae-exits-") as folder:
        ended = run_torchrun(arguments, Path(folder), grace)
        if ended.apart and is_trained():  # a node that comes back when the others are done and gone
            return EXIT_DONE
        for message in dict.fromkeys(_messages(ended, read_exits(Path(folder)))):
            complain(message)
    return ended.code


def _messages(ended: Ended, exits: Iterable[Exit]) -> Iterator[str]:
    """Yield what the workers whose end decided have to say: others only lost their connection to those."""
    if ended.apart:
        yield (
            f"kubesae: This node does not meet the others of the training ({ended.apart}). One of them is gone or not "
            "there yet: when all have started again, they go on from the last checkpoint."
        )
        return
    killed = {rank: -code for rank, code in ended.failed.items() if code < 0}
    if ended.code == EXIT_FAULT and killed:
        for rank, number in killed.items():
            yield (
                f"kubesae: Rank {rank} was killed by {signal.Signals(number).name}. Where nobody did that and it is "
                "SIGKILL, memory ran out: lower --batch-size or --shuffle-rows, or give the Pod more. It goes on from "
                "the last checkpoint when started again."
            )
        return
    decisive = [end for end in exits if end.code == ended.code]
    if ended.code == EXIT_INTERRUPTED:  # all say so, and the first knows the checkpoint
        yield from decisive[0].messages if decisive else (STOPPED,)
        return
    for end in decisive:
        yield from end.messages


def pod_code(code: int, *, again: bool, starts: Starts | None) -> int:
    """Return the Pod's exit code for `code`; `again`: its back-end starts it again for codes above 127 alone."""
    if not again:
        return code
    for number in (signal.SIGTERM, signal.SIGINT):  # what is left takes less than what they leave
        signal.signal(number, signal.SIG_IGN)
    final = code not in {EXIT_FAULT, EXIT_INTERRUPTED}
    with suppress(KubesaeError):  # a store that does not answer: the Pod's next start will say so
        if starts and code == EXIT_INTERRUPTED:
            starts.take_back()
        elif starts and code == EXIT_FAULT:
            final = not starts.may_go_on()
        elif starts:
            starts.forget()
    return code if final else EXIT_AGAIN
