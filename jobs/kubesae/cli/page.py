"""`kubesae page`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import choose_sae, experiment_options, overrides, resolve
from kubesae.errors import ConfigError, Interrupted

DEFAULT_COUNT = 100


@click.command("page")
@experiment_options()
@click.option("--sae-name", help="which SAE (default: the experiment's, or the only one that has a page)")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="port to listen on  [default: a free one]")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="address to listen on; any but a loopback one lets others read",
)
@click.option(
    "--single-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write the page with some features into this one file instead, at most 500",
)
@click.option("--features", help="which ones of --single-file, such as 12,845")
@click.option(
    "--count",
    type=click.IntRange(1),
    help=f"how many of --single-file, the purest labels first  [default: {DEFAULT_COUNT}]",
)
def command(
    experiment: Path | None,
    sae_name: str | None,
    port: int,
    host: str,
    single_file: Path | None,
    features: str | None,
    count: int | None,
    **flags: Any,
) -> None:
    """Show the page of an SAE's features in a browser, from a folder or a bucket, with your credentials.

    Serves what `kubesae interpret` wrote, on this machine alone, until it is interrupted. With --single-file it writes
    a file that opens without a server.
    """
    if single_file is None and (features or count):
        raise ConfigError("--features and --count say what --single-file holds: give that too.")
    if features and count:
        raise ConfigError("--features names features, --count lets them be chosen: leave one of them out.")
    resolved = resolve(experiment, overrides(flags))
    from kubesae.browse import PageServer, choose, require_page, write_single  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    output = open_store(resolved.output_prefix)
    sae = require_page(output, choose_sae(resolved, sae_name))
    if single_file is not None:
        chosen = _numbers(features) if features else choose(output, sae, count or DEFAULT_COUNT)
        write_single(output, sae, single_file, chosen)
        say(f"Page: {single_file} ({len(chosen)} features, {single_file.stat().st_size / 1e6:.1f} MB)")
        return
    with PageServer(output, sae, host=host, port=port) as server:
        say(f"Page: {server.url} (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt, Interrupted):  # that is how it is meant to end
            server.serve_forever()


def _numbers(text: str) -> list[int]:
    """Read numbers with commas between them; each counts once."""
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"--features {text}: these are no numbers with commas between them. Write 12,845.") from error
