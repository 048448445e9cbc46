"""torchrun in this process: its settings come from the PET_* variables that PyTorchJob or the chart set, as ever.

What they leave open: one node needs no rendezvous with others, so none of its addresses is used and no name has to be
resolved; a process runs on each visible GPU, and one where there is none (torchrun's own `auto` starts one a core).
"""

from __future__ import annotations

import logging
import math
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import EXIT_INTERRUPTED, ConfigError
from kubesae.launch.exits import EXIT_FOLDER, outcome, read_exits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

PROGRAM = "kubesae.train"
# Of several nodes one may leave this often before the others start anew as whole Pods.
RESTARTS = "3"
# Seconds that workers have for their last checkpoint and their end, beyond the checkpoint's own.
MARGIN = 5


@dataclass(frozen=True, slots=True)
class Ended:
    """How torchrun ended.

    Attributes:
        code: what the ends of its workers mean together.
        failed: exit codes of those that failed first, by rank.
        apart: why this node does not meet the others; None where it does.

    """

    code: int
    failed: Mapping[int, int]
    apart: str | None = None


def torchrun_options(environment: Mapping[str, str], gpus: Callable[[], int]) -> list[str]:
    """Return the options that torchrun's own reading of the PET_* variables does not give.

    Raises:
        ConfigError: PET_NNODES is no number of nodes, or several nodes have nowhere to meet.

    """
    nodes = environment.get("PET_NNODES") or "1"
    numbers = nodes.split(":")
    if len(numbers) > 2 or not all(number.isdecimal() and int(number) for number in numbers):
        raise ConfigError(f"PET_NNODES is {nodes!r}. Give a number of nodes, or the least and the most of them: 1:4.")
    processes = environment.get("PET_NPROC_PER_NODE") or "auto"
    if processes in {"auto", "gpu"}:
        processes = str(max(1, gpus()))
    options = [f"--nproc-per-node={processes}"]
    if int(numbers[-1]) == 1:
        return ["--standalone", "--nnodes=1", "--local-addr=127.0.0.1", *options]
    if not environment.get("PET_RDZV_ENDPOINT") and not environment.get("PET_MASTER_ADDR"):
        raise ConfigError(
            f"PET_NNODES is {nodes!r}, but neither PET_RDZV_ENDPOINT nor PET_MASTER_ADDR says where the nodes meet. "
            "Set one of them, as PyTorchJob does."
        )
    return options if environment.get("PET_MAX_RESTARTS") else [*options, f"--max-restarts={RESTARTS}"]


def run_torchrun(arguments: Sequence[str], folder: Path, grace: float) -> Ended:
    """Run workers until all have ended; `arguments` are those of `kubesae train`, `folder` takes their ends.

    SIGTERM and SIGINT are passed on to the workers, which write a checkpoint within `grace` seconds and end.

    Raises:
        Exception: torchrun itself failed.

    """
    # Of torchrun's loggers some take their level from here, the others from their parent. What matters of an end we say
    # ourselves, once.
    level = os.environ.setdefault("LOGLEVEL", "CRITICAL")
    logging.getLogger("torch.distributed.elastic").setLevel(level)
    from torch.distributed import run  # noqa: PLC0415 - seconds to import
    from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.elastic.rendezvous.api import RendezvousError  # noqa: PLC0415

    # Else the processes of every round of an elastic training meet in one store, under a number that nodes which failed
    # count on and others do not: they wait for each other for ever, or find the addresses of the dead.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    options = torchrun_options(os.environ, _visible_gpus)
    settings = run.parse_args([*options, "--module", PROGRAM, *arguments])
    settings.log_dir = str(folder / "torchrun")
    settings.shutdown_timeout = math.ceil(grace) + MARGIN
    os.environ[EXIT_FOLDER] = str(folder)
    _share_cores(settings.nproc_per_node)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stopped, failed = False, {}
    try:
        run.run(settings)
    except SignalException:
        stopped = True
    except ChildFailedError as error:
        failed = _first_failures(error)
    except RendezvousError as error:  # the others may not be scheduled yet, however often we start
        return Ended(EXIT_INTERRUPTED, {}, f"{type(error).__name__}: {str(error).rstrip('.')}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    codes = [end.code for end in read_exits(folder)]
    return Ended(outcome([*codes, *failed.values()], stopped=stopped), failed)


def _first_failures(error: ChildFailedError) -> dict[int, int]:
    """Return the exit codes of the ranks that failed by themselves: torchrun lists those too that it stopped then.

    It terminates these, and kills those that do not heed that; their times are whole seconds.
    """
    _, first = error.get_first_failure()
    return {
        rank: EXIT_INTERRUPTED if failure.exitcode == -signal.SIGTERM else failure.exitcode
        for rank, failure in error.failures.items()
        if failure.timestamp <= first.timestamp + 1
    }


def _visible_gpus() -> int:
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()


def _share_cores(processes: str) -> None:
    """Give each process its share of the cores; torchrun would give each a single one."""
    if processes.isdecimal() and int(processes) > 1:
        share = max(1, len(os.sched_getaffinity(0)) // int(processes))
        os.environ.setdefault("OMP_NUM_THREADS", str(share))
