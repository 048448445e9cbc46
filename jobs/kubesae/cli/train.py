"""`kubesae train`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, metrics_option, overrides, resolve, section_fields
from kubesae.errors import ConfigError
from kubesae.experiment import Sae, validate
from kubesae.memory import keep_memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kubesae.experiment import DataIdentity, Experiment
    from kubesae.store import Store
    from kubesae.train import TrainResults

SAE = "sae.0."


@click.command("train")
@experiment_options("chunk", *section_fields("sae"))
@click.option("--num-workers", type=click.IntRange(1), default=2, show_default=True, help="blocks read at once")
@click.option("--num-shards", type=int, help="check that the data has this many shards")
@click.option("--d-model", type=int, help="check that the activations have this width")
@click.option("--train-device", default="auto", show_default=True, help="auto: a GPU of this rank, else the CPU")
@click.option(
    "--feature-shards",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="ranks that share out the features of an SAE",
)
@metrics_option
@click.option("--grace", default=10.0, show_default=True, help="seconds that SIGTERM leaves for a last checkpoint")
def command(
    experiment: Path | None,
    num_workers: int,
    num_shards: int | None,
    d_model: int | None,
    train_device: str,
    feature_shards: int,
    grace: float,
    metrics_port: int | None,
    **flags: Any,
) -> None:
    """Train a sparse autoencoder on collected activations.

    Trains all SAEs of the experiment. Those with equal layer, batch_size, epochs, shuffle_rows, max_tokens, validation
    and order_seed share one pass over the data. A flag about an SAE means that only one is trained: that of --sae-name,
    else the first, with the flags in place of the file's values. Writes sae/NAME/ below the output prefix, with
    report.html. Under torchrun every process takes its share of each batch:

        torchrun --nproc_per_node=2 -m kubesae.train experiment.yaml

    An SAE that does not fit into one GPU's memory is shared out: with --feature-shards N each N neighbouring processes
    hold the features of one SAE and take the same rows. Checkpoints go on with any number of either.
    """
    resolved, saes = trainings(experiment, flags)
    keep_memory()
    from kubesae.cli.metrics import TrainMetrics, serving  # noqa: PLC0415 - keeps --help fast
    from kubesae.ledger import read_identity, write_run  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415
    from kubesae.train import Console, Limits, run_trainings  # noqa: PLC0415

    data, output = open_store(resolved.data), open_store(resolved.output_prefix)
    _check(read_identity(data), data, num_shards, d_model)
    write_run(output, resolved)
    with serving(TrainMetrics, resolved.name, metrics_port) as metrics:
        results = run_trainings(
            data,
            output,
            saes,
            chunk=resolved.chunk,
            console=Console(say, bars=sys.stdout.isatty(), measured=metrics.measured if metrics else None),
            workers=num_workers,
            device=train_device,
            feature_shards=feature_shards,
            limits=Limits(grace=grace),
        )
    if os.environ.get("RANK", "0") == "0":  # torchrun's number of this process
        _show(output, results, several=len(saes) > 1)
    results.require_all()


def _show(output: Store, results: TrainResults, *, several: bool) -> None:
    for result in results.complete:
        say(f"Report: {output.url_of(result.report)}")
    if several and results.complete:
        from kubesae.cli.compare import show  # noqa: PLC0415 - keeps --help fast
        from kubesae.compare import write_comparison  # noqa: PLC0415

        show(output, write_comparison(output))


def trainings(experiment: Path | None, flags: dict[str, Any]) -> tuple[Experiment, Sequence[Sae]]:
    """Return the experiment and the SAEs of it to train, with the flags laid over."""
    given = overrides(flags)
    changes = {field.removeprefix(SAE): given.pop(field) for field in list(given) if field.startswith(SAE)}
    resolved = resolve(experiment, given)
    return resolved, [_choose(resolved, changes)] if changes else resolved.sae


def _choose(experiment: Experiment, changes: dict[str, Any]) -> Sae:
    """Return the one SAE that the flags speak of, with the flags laid over it."""
    named = [sae for sae in experiment.sae if sae.name is not None and sae.name == changes.get("name")]
    base = (named or experiment.sae)[0]
    if not named and {"architecture", "d_sae", "layer"} & changes.keys():
        base = base.model_copy(update={"name": None})  # another SAE than the file's: it needs another name
    return validate(Sae, base.model_dump() | changes, "the flags")


def _check(identity: DataIdentity | None, data: Store, num_shards: int | None, d_model: int | None) -> None:
    if identity is None:
        return
    for name, wanted, found in (
        ("--num-shards", num_shards, identity.num_shards),
        ("--d-model", d_model, identity.d_model),
    ):
        if wanted is not None and wanted != found:
            raise ConfigError(
                f"{name} is {wanted}, but the data at {data.url} has {found}. Leave it out, or fix --data."
            )
