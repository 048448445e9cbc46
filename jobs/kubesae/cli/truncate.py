"""`kubesae truncate`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from kubesae.cli.console import say
from kubesae.errors import ConfigError
from kubesae.experiment import load_experiment


@click.command("truncate")
@click.argument(
    "experiment", required=False, type=click.Path(path_type=Path, dir_okay=False), envvar="KUBESAE_EXPERIMENT"
)
@click.option("--from", "origin", metavar="TEXT", help="hub id, folder or s3://bucket/prefix  [default: the model]")
@click.option(
    "--to", "target", metavar="TEXT", required=True, help="folder or s3://bucket/prefix for the model's files"
)
@click.option("--layers", type=click.IntRange(min=0), help="deepest layer that is needed  [default: the experiment's]")
@click.option("--with-head", is_flag=True, help="keep the final norm and the output head, in head.safetensors")
@click.option("--model-revision", metavar="TEXT", help="revision of a hub model  [default: the experiment's]")
def command(
    experiment: Path | None,
    origin: str | None,
    target: str,
    layers: int | None,
    with_head: bool,
    model_revision: str | None,
) -> None:
    """Bring a model without its later layers to where programs load it from.

    As `kubesae fetch`, but of the weights only what the layers up to --layers need is read or downloaded: by ranges,
    where a file holds other tensors too. transformers loads it as any other model. It cannot predict tokens; what needs
    the whole model, as the cross-entropy of `kubesae evaluate` does, is not to be had from it. Killed and started again
    it goes on with the next file.
    """
    described = load_experiment(experiment) if experiment else None
    origin = origin or (described.model if described else None)
    if layers is None and described:
        layers = described.layers[-1]
    if origin is None or layers is None:
        raise ConfigError("Which model, and how much of it? Give an experiment, or --from and --layers.")
    from kubesae.fetch import fetch, find_source  # noqa: PLC0415 - keeps --help fast
    from kubesae.fetch.truncated import TruncatedSource  # noqa: PLC0415

    revision = model_revision or (described.model_revision if described else None)
    with tempfile.TemporaryDirectory(prefix="kubesae-truncate-") as folder:
        source = TruncatedSource(find_source(origin, revision), layers, with_head, Path(folder))
        fetched = fetch(source, target, say)
    state = "was there already" if fetched.existed else "truncated"
    say(f"✓ Model {state}: layers 0 to {layers}, {fetched.files} files, {fetched.bytes:,} bytes, at {target}")
