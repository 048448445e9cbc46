"""`kubesae train-launch`."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import click

from kubesae.cli import console, train
from kubesae.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.experiment import Experiment, Sae
    from kubesae.store import Store

# Which controller started the Pod.
BACKEND = "KUBESAE_TRAIN_BACKEND"
BACKENDS = ("job", "pytorchjob")


@click.command("train-launch", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> int:
    """Train under torchrun, as the Pods of a training do.

    ARGUMENTS are those of `kubesae train`. A process runs on each visible GPU, or one where there is none; the PET_*
    variables of torchrun and PyTorchJob say otherwise, and how several nodes meet. SIGTERM reaches every process and
    leaves time for a last checkpoint. $KUBESAE_TRAIN_BACKEND chooses the exit codes: `job` those of every command,
    `pytorchjob` those that a PyTorchJob needs: 143 to be started again, 2 and 1 to end.
    """
    from kubesae.cli.main import explain  # noqa: PLC0415 - it imports us
    from kubesae.launch import Starts, pod_code, run_launch  # noqa: PLC0415 - keeps --help fast
    from kubesae.ledger import is_trained  # noqa: PLC0415

    backend = os.environ.get(BACKEND) or "job"
    if backend not in BACKENDS:
        raise ConfigError(f"{BACKEND} is {backend!r}. Set it to one of {', '.join(BACKENDS)}.")
    if console.JSON:
        os.environ["KUBESAE_LOG_FORMAT"] = "json"
    again, starts = backend == "pytorchjob", None
    try:
        given = train.command.make_context("kubesae train-launch", list(arguments)).params
        experiment, saes = train.trainings(given.pop("experiment"), given)
        output, names = _trained_names(experiment, saes)
        starts = Starts(output, names, socket.gethostname()) if again and names else None
        code = run_launch(
            arguments,
            given["grace"],
            starts,
            lambda: all(is_trained(output, name) for name in names),
            console.complain,
        )
    except Exception as error:  # noqa: BLE001 - the Pod's exit code depends on it, whatever it is
        code = explain(error)
    return pod_code(code, again=again, starts=starts)


def _trained_names(experiment: Experiment, saes: Sequence[Sae]) -> tuple[Store, list[str]]:
    """Return where SAEs go, and the names of those to train; none where there is no data, as the training will say."""
    from kubesae.ledger import read_identity, sae_names  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415

    identity = read_identity(open_store(experiment.data))
    these = experiment.model_copy(update={"sae": tuple(saes)})
    return open_store(experiment.output_prefix), sae_names(these, identity) if identity else []
