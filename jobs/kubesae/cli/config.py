"""`kubesae config`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from kubesae.experiment import Experiment, load_experiment


@click.command("config")
@click.argument("experiment", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--schema", is_flag=True, help="print the JSON schema of an experiment file instead")
def command(experiment: Path | None, schema: bool) -> None:
    """Check an experiment file and print it with all defaults, as YAML."""
    import yaml  # noqa: PLC0415 - keeps --help fast

    if schema or experiment is None:
        click.echo(json.dumps(Experiment.model_json_schema(), indent=2))
        return
    values = load_experiment(experiment).model_dump(mode="json")
    click.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)
