"""`kubesae config`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from kubesae.cli.reference import commands_page
from kubesae.experiment import Experiment, load_experiment
from kubesae.experiment.reference import reference_page


@click.command("config")
@click.argument("experiment", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--schema", is_flag=True, help="print the JSON schema of an experiment file instead")
@click.option("--reference", is_flag=True, help="print the page of all fields instead")
@click.option("--commands", is_flag=True, help="print the page of all commands and their flags instead")
def command(experiment: Path | None, schema: bool, reference: bool, commands: bool) -> None:
    """Check an experiment file and print it with all defaults, as YAML."""
    import yaml  # noqa: PLC0415 - keeps --help fast

    if reference:
        click.echo(reference_page(), nl=False)
        return
    if commands:
        from kubesae.cli.main import COMMANDS  # noqa: PLC0415 - it imports this module, by name

        click.echo(commands_page(COMMANDS), nl=False)
        return
    if schema or experiment is None:
        click.echo(json.dumps(Experiment.model_json_schema(), indent=2))
        return
    values = load_experiment(experiment).model_dump(mode="json")
    click.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)
