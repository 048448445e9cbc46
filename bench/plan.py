"""The planner's estimate against the clock: how long collecting the demo takes on this machine.

    make bench NAME=plan

Each round measures the machine (`kubesae plan --calibrate`), collects the demo's tokens with two workers into an empty
prefix, and measures again; the plan is made of both measurements. Programs beside this one slow both, not always alike.

Rows: `plan-seconds`, the estimate, against `measured` seconds; `plan-error-percent`, the median of the rounds' errors.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from bench.support.measure import Timings, print_row, say

from kubesae.cli.demo import demo_experiment
from kubesae.model.smollm2 import demo_model

ROUNDS, WORKERS = 3, 2


def kubesae(*arguments: str | Path) -> str:
    """Run a command, its standard output to ours but for what is returned."""
    command = [sys.executable, "-m", "kubesae", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - ourselves


def planned(experiment: Path, calibration: Path) -> float:
    """Measure this machine and return the seconds that collecting is planned to take."""
    options = ["--gpu", "here", "--calibrate", "--workers", str(WORKERS), "--calibration", calibration, "--json"]
    report: dict[str, Any] = json.loads(kubesae("plan", experiment, *options))
    return float(report["collection"]["seconds"])


def collected(experiment: Path, folder: Path) -> float:
    """Collect into an empty prefix and return the seconds that it took."""
    shutil.rmtree(folder / "activations", ignore_errors=True)
    began = time.perf_counter()
    kubesae("collect", experiment, "--all", "--workers", str(WORKERS))
    return time.perf_counter() - began


def main() -> None:
    """Run the rounds and print the rows."""
    model = demo_model(say)
    estimates, clock = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        experiment = folder / "experiment.yaml"
        experiment.write_text(yaml.safe_dump(demo_experiment(folder, model)))
        kubesae("prepare", experiment)
        before = planned(experiment, folder / "calibration.json")
        for number in range(1, ROUNDS + 1):
            clock.append(collected(experiment, folder))
            after = planned(experiment, folder / "calibration.json")
            estimates.append((before + after) / 2)
            before = after
            say(f"round {number} of {ROUNDS}: planned {estimates[-1]:.1f} s, measured {clock[-1]:.1f} s")
    plan, measured = Timings(estimates), Timings(clock)
    print_row("plan", "plan-seconds", plan.median, "s", "lower", "measured", measured.median, plan.ratio(measured))
    errors = [100 * abs(estimate / spent - 1) for estimate, spent in zip(estimates, clock, strict=True)]
    print_row("plan", "plan-error-percent", statistics.median(errors), "percent", "lower")


if __name__ == "__main__":
    main()
