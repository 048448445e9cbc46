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

FEATURE_FORMATS = ("delphi", "sae-dashboard", "neuronpedia", "circuit-tracer", "sae-bench", "parquet")
"""keys of `kubesae.export.FORMATS`, which loads torch"""


@click.command("export")
@experiment_options()
@format_option(*FEATURE_FORMATS)
@click.option("--to", "target", metavar="TEXT", required=True, help="folder or s3://bucket/prefix for its files")
@click.option("--sae-name", help="which SAE (default: the experiment's, or the only one there is)")
@click.option(
    "--features", metavar="LIST", help="these alone, such as 0,5,10-20, of what is said of features  [default: all]"
)
@click.option(
    "--from", "origin", metavar="TEXT", help="folder or s3://bucket/prefix of an SAE, in place of an experiment"
)
def command(
    experiment: Path | None,
    format_name: str,
    target: str,
    sae_name: str | None,
    features: str | None,
    origin: str | None,
    **flags: Any,
) -> None:
    """Write an SAE, or what is known of its features, as another library opens it.

    `sae-lens`, `sparsify`, `dictionary-learning`: the weights of the best checkpoint, for activations as the model
    gives them. Features and reconstructions are those of `kubesae.load_sae`.

    After `kubesae interpret`: `delphi`, which latents are active where, for explaining and scoring; `sae-dashboard`,
    dashboards of features; `neuronpedia`, a folder for its bulk import, labels included; `circuit-tracer`, all features
    for its viewer, read by range; `parquet`, the tables, with a README of their columns.

    After `kubesae evaluate`: `sae-bench`, a result of SAEBench's core evaluation.

    What a format cannot hold is refused, and other files are not replaced. docs/exports.md shows how each is opened.
    """
    if origin is not None and (experiment is not None or sae_name is not None):
        raise ConfigError("--from names an SAE by itself: leave out the experiment and --sae-name, or --from.")
    if format_name in FEATURE_FORMATS:
        if origin is not None:
            raise ConfigError(f"--format {format_name} is about an interpreted SAE: give its experiment, not --from.")
        _export_features(experiment, format_name, target, sae_name, features, overrides(flags))
    elif features is not None:
        raise ConfigError(f"--format {format_name} writes an SAE, with all its features: leave out --features.")
    else:
        _export_sae(format_name, target, *_load(experiment, sae_name, origin, overrides(flags)))
    if target.startswith("s3://"):
        say("It reads folders: copy the files from the bucket to one first, and give that.")


def _export_sae(format_name: str, target: str, name: str, sae: Sae) -> None:
    from kubesae.sae.formats import export_sae  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    exported = export_sae(sae, format_name, open_store(target))
    config = sae.config
    say(f"✓ SAE {name} ({config.architecture}, {config.d_model} to {config.d_sae}) written for {format_name}:")
    for file, size in exported.files.items():
        say(f"    {file}  {size:,} bytes")
    say(f"Load it: {exported.loading}")


def _export_features(
    experiment: Path | None,
    format_name: str,
    target: str,
    sae_name: str | None,
    features: str | None,
    given: dict[str, Any],
) -> None:
    resolved = resolve(experiment, given)
    from kubesae.export import FORMATS, Subject, export  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    data, output = open_store(resolved.data), open_store(resolved.output_prefix)
    subject = Subject.open(data, output, choose_sae(resolved, sae_name), features)
    written = export(subject, format_name, open_store(target))
    size = sum(written.files.values())
    say(f"✓ SAE {subject.named.name} written for {format_name}: {len(written.files):,} files, {size:,} bytes")
    for sentence in subject.missing():
        say(f"  {sentence}")
    say(f"Open it: {FORMATS[format_name].loading(written.url)}")


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
