"""`kubesae release`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubesae.cli.console import say
from kubesae.ledger import PHASES

if TYPE_CHECKING:
    from kubesae.ledger import Phase


@click.command("release")
@click.argument("phase", type=click.Choice(PHASES))
@click.option("--release", "experiment", metavar="NAME", help="which experiment  [default: the only one there is]")
@click.option("-n", "--namespace", metavar="NAME", help="namespace  [default: the kubeconfig's]")
@click.option("--force", is_flag=True, help="do not ask whether the phases before it are complete")
def command(phase: Phase, experiment: str | None, namespace: str | None, force: bool) -> None:
    """Let a phase of an experiment in a cluster begin.

    The operator does it by itself, when the store shows that the phases before it are complete; this asks the store
    too. It needs a kubeconfig whose user may read the experiment's objects and change its jobs, and read the Secret for
    its store; without one the store is reached as this machine is set up.
    """
    from kubesae.release import Cluster, choose_experiment, release  # noqa: PLC0415 - keeps --help fast

    cluster = Cluster.connect(namespace)
    jobs = choose_experiment(cluster.jobs(), experiment, cluster.namespace)
    for name in release(cluster, jobs, phase, force=force):
        say(f"✓ Released {name}")
