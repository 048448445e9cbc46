"""`kubesae export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import choose_sae, experiment_options, format_option, overrides, resolve
from kubesae.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.sae import Sae


@click.command("export")
@experiment_options()
@format_option
@click.option("--to", "target", metavar="TEXT", required=True, help="folder or s3://bucket/prefix for its files")
@click.option("--sae-name", help="which SAE (default: the experiment's, or the only one there is)")
@click.option(
    "--from", "origin", metavar="TEXT", help="folder or s3://bucket/prefix of an SAE, in place of an experiment"
)
def command(
    experiment: Path | None, format_name: str, target: str, sae_name: str | None, origin: str | None, **flags: Any
) -> None:
    """Write an SAE in the format of another library, which loads it as it is.

    Writes the weights of its best checkpoint to the folder --to, for activations as the model gives them: features and
    reconstructions are those of `kubesae.load_sae`. A format that cannot hold the SAE exactly is refused.
    """
    if origin is not None and (experiment is not None or sae_name is not None):
        raise ConfigError("--from names an SAE by itself: leave out the experiment and --sae-name, or --from.")
    name, sae = _load(experiment, sae_name, origin, overrides(flags))
    from kubesae.sae.formats import export_sae  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    exported = export_sae(sae, format_name, open_store(target))
    config = sae.config
    say(f"✓ SAE {name} ({config.architecture}, {config.d_model} to {config.d_sae}) written for {format_name}:")
    for file, size in exported.files.items():
        say(f"    {file}  {size:,} bytes")
    say(f"Load it: {exported.loading}")
    if target.startswith("s3://"):
        say("It reads folders: copy the files from the bucket to one first, and give that.")


def _load(experiment: Path | None, sae_name: str | None, origin: str | None, given: dict[str, Any]) -> tuple[str, Sae]:
    """Return an SAE and its name."""
    if origin is not None:
        from kubesae.sae import load_sae  # noqa: PLC0415

        sae = load_sae(origin)
        return str(sae.metadata.get("name", origin)), sae
    resolved = resolve(experiment, given)
    from kubesae.ledger import require_identity  # noqa: PLC0415
    from kubesae.sae.named import open_named  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415

    identity = require_identity(open_store(resolved.data))
    named = open_named(open_store(resolved.output_prefix), choose_sae(resolved, sae_name), identity)
    return named.name, named.sae
