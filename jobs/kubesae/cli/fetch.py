"""`kubesae fetch`."""

from __future__ import annotations

from pathlib import Path

import click

from kubesae.cli.console import say
from kubesae.errors import ConfigError
from kubesae.experiment import load_experiment


@click.command("fetch")
@click.argument(
    "experiment", required=False, type=click.Path(path_type=Path, dir_okay=False), envvar="KUBESAE_EXPERIMENT"
)
@click.option("--from", "origin", metavar="TEXT", help="hub id, folder or s3://bucket/prefix  [default: the model]")
@click.option(
    "--to", "target", metavar="TEXT", required=True, help="folder or s3://bucket/prefix for the model's files"
)
@click.option("--model-revision", metavar="TEXT", help="revision of a hub model  [default: the experiment's]")
def command(experiment: Path | None, origin: str | None, target: str, model_revision: str | None) -> None:
    """Bring a model to where programs load it from.

    Config, tokenizer and safetensors weights, from the hub, a folder or an object store to a folder or an object store;
    the experiment's `model` then names that folder. Killed and started again it goes on; a model that is there already
    is left alone, without a question to its source.
    """
    described = load_experiment(experiment) if experiment else None
    origin = origin or (described.model if described else None)
    if origin is None:
        raise ConfigError("Which model? Give --from the id of a hub model, a folder or s3://bucket/prefix.")
    from kubesae.fetch import fetch, find_source  # noqa: PLC0415 - keeps --help fast

    revision = model_revision or (described.model_revision if described else None)
    fetched = fetch(find_source(origin, revision), target, say)
    state = "was there already" if fetched.existed else "fetched"
    say(f"✓ Model {state}: {fetched.files} files, {fetched.bytes:,} bytes, at {target}")
