"""`kubesae retry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubesae.cli.console import say
from kubesae.ledger import PHASES

if TYPE_CHECKING:
    from kubesae.ledger import Phase


@click.command("retry")
@click.argument("phase", type=click.Choice(PHASES))
@click.option("--release", "experiment", metavar="NAME", help="which experiment  [default: the only one there is]")
@click.option("-n", "--namespace", metavar="NAME", help="namespace  [default: the kubeconfig's]")
def command(phase: Phase, experiment: str | None, namespace: str | None) -> None:
    """Make the failed jobs of a phase of an experiment anew.

    A Job that has ended Failed never starts again. This deletes it and makes it once more as the chart described it, so
    that Helm still owns it; the work goes on from what is committed. A job that has not failed is left alone.
    """
    from kubesae.release import Cluster, choose_experiment, retry  # noqa: PLC0415 - keeps --help fast

    cluster = Cluster.connect(namespace)
    jobs = choose_experiment(cluster.jobs(), experiment, cluster.namespace)
    for name in retry(cluster, jobs, phase):
        say(f"✓ Made anew: {name}")
