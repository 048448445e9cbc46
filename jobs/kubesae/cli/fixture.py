"""`kubesae fixture`."""

from __future__ import annotations

from typing import Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import all_options, overrides
from kubesae.errors import ConfigError
from kubesae.experiment import Experiment, validate

FIELDS = (
    "layers",
    "tokens",
    "num_shards",
    "context",
    "contexts_per_part",
    "contexts_per_block",
    "chunk",
    "storage",
    "seed",
)
SMALL = {
    "name": "fixture",
    "model": "planted",
    "corpora": [{"name": "planted", "source": "planted"}],
    "layers": [0, 1],
    "tokens": 200_000,
    "num_shards": 2,
    "context": 128,
    "contexts_per_part": 64,
    "contexts_per_block": 16,
    "chunk": 50_000,
}


@click.command("fixture")
@click.argument("data")
@all_options(*FIELDS)
@click.option("--d-model", type=click.IntRange(1), default=64, show_default=True, help="width of the activations")
@click.option("--features", type=click.IntRange(4), default=256, show_default=True, help="planted features a layer")
def command(data: str, d_model: int, features: int, **flags: Any) -> None:
    """Write a valid synthetic experiment to the prefix DATA, without a model.

    Activations are sums of planted features, with outliers at first positions, in several layers. Defaults are small:
    200,000 tokens in 2 shards, layers 0 and 1.
    """
    experiment = validate(Experiment, SMALL | overrides(flags) | {"data": data}, "the flags")
    from kubesae.fixture import write_fixture  # noqa: PLC0415 - keeps --help fast
    from kubesae.ledger import read_identity  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415

    store = open_store(data)
    store.probe()
    if read_identity(store) is not None:
        raise ConfigError(f"{data} holds activations already; nothing was touched. Give an empty prefix.")
    write_fixture(experiment, store, d_model, features)
    say(
        f"✓ {experiment.tokens:,} tokens in {experiment.num_shards} shards, layers {list(experiment.layers)}, at {data}"
    )
