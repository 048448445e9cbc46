"""`kubesae import`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, format_option, overrides, resolve

if TYPE_CHECKING:
    from pathlib import Path


@click.command("import")
@experiment_options()
@format_option()
@click.option("--from", "origin", metavar="TEXT", required=True, help="folder or s3://bucket/prefix of its files")
@click.option("--sae-name", metavar="TEXT", required=True, help="the name that it gets here")
@click.option("--layer", type=click.IntRange(0), required=True, help="layer whose output it reconstructs")
def command(experiment: Path | None, format_name: str, origin: str, sae_name: str, layer: int, **flags: Any) -> None:
    """Take in an SAE that another library trained on this model, to evaluate and interpret it.

    Writes sae/NAME/ below the output prefix; the data must be there already. An SAE that cannot be represented exactly
    is refused, and files are never unpickled.
    """
    resolved = resolve(experiment, overrides(flags))
    from kubesae.ledger import require_identity  # noqa: PLC0415 - keeps --help fast
    from kubesae.sae.formats import import_sae  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415

    identity = require_identity(open_store(resolved.data))
    output = open_store(resolved.output_prefix)
    foreign = import_sae(output, identity, format_name, open_store(origin), sae_name, layer)
    config = foreign.config
    say(f"✓ {foreign.kind} imported as SAE {sae_name} ({config.architecture}, {config.d_model} to {config.d_sae})")
    for note in foreign.notes:
        say(f"  {note}")
    say(f"Next: kubesae evaluate --data {resolved.data} --sae-name {sae_name}")
