"""`kubesae explain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import choose_sae, experiment_options, overrides, resolve
from kubesae.errors import ConfigError


@click.command("explain")
@experiment_options()
@click.option("--sae-name", help="which SAE (default: the experiment's, or the only one there is)")
@click.option("--features", metavar="LIST", help="numbers of features, with commas between them")
@click.option("--count", type=click.IntRange(1), help="so many live features, a fair sample")
@click.option("--endpoint", metavar="URL", help="OpenAI-compatible endpoint, as http://127.0.0.1:8000/v1")
@click.option("--model", metavar="NAME", help="the language model's name there")
@click.option(
    "--examples", type=click.IntRange(1), default=100, show_default=True, help="examples of each kind to judge on"
)
@click.option("--parallel", type=click.IntRange(1), default=4, show_default=True, help="questions at a time")
@click.option("--timeout", type=click.FloatRange(0.1), default=120.0, show_default=True, help="seconds of one answer")
@click.option(
    "--export-prompts",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write all questions as JSONL instead of asking them",
)
def command(
    experiment: Path | None,
    sae_name: str | None,
    features: str | None,
    count: int | None,
    endpoint: str | None,
    model: str | None,
    examples: int,
    parallel: int,
    timeout: float,
    export_prompts: Path | None,
    **flags: Any,
) -> None:
    """Let a language model explain features, and judge how well its explanations fit.

    It sees contexts with the active tokens marked. Then it is asked, by its explanation alone, on which of other
    contexts the feature is active (detection), and in which the active tokens are marked (fuzzing): balanced accuracy,
    0.5 by chance. Needs an interpretation (`kubesae interpret`). The key for the endpoint, where it wants one, is read
    from OPENAI_API_KEY. Stopped and started again it goes on with the next feature. Results are in
    interpret/NAME/explanations.parquet below the output prefix.
    """
    resolved = resolve(experiment, overrides(flags))
    if (features is None) == (count is None):
        raise ConfigError("Which features? Give --features 1,5,7 or --count 20.")
    if export_prompts is None and not (endpoint and model):
        raise ConfigError("Which language model? Give --endpoint and --model, or --export-prompts to ask none.")
    numbers = _numbers(features) if features is not None else []
    from kubesae.interpret.explain import KEY, Endpoint, choose, explain, open_interpretation, prompts  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415 - keeps --help fast
    from kubesae.store.disk import disk_errors  # noqa: PLC0415

    found = open_interpretation(
        open_store(resolved.data), open_store(resolved.output_prefix), choose_sae(resolved, sae_name)
    )
    chosen = choose(found, numbers, count or 0)
    if export_prompts is not None:
        with disk_errors(export_prompts), export_prompts.open("w", encoding="utf-8") as file:
            lines = [file.write(line + "\n") for line in prompts(found, chosen, examples)]
        say(f"Wrote {len(lines):,} questions about {len(chosen):,} features to {export_prompts}")
        return
    language_model = Endpoint(endpoint or "", model or "", (os.environ.get(KEY) or "").strip(), timeout)
    explain(found, chosen, language_model, examples, parallel, say)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--features {text!r} is no list of numbers. Give one as 1,5,7.") from None
