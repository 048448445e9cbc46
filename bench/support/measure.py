"""What the benches share: rows, pairs that are interleaved, processor seconds, an S3 server of their own.

What is compared runs in turns within one process or beside it, so that whatever else the machine does hits all alike;
of each case the median is reported. Rows go to standard output, progress to standard error.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psutil
from botocore.config import Config

from s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MB = 1e6
GB = 1e9


def say(line: str) -> None:
    """Tell progress."""
    print(line, file=sys.stderr, flush=True)


def print_row(
    bench: str,
    case: str,
    value: float,
    unit: str,
    better: str = "higher",
    against: str | None = None,
    other: float | None = None,
    ratio: float | None = None,
) -> None:
    """Print one row. `ratio` is above 1 where `value` is the better one; a median of pairs where it is given."""
    if ratio is None and other is not None:
        over, under = (other, value) if better == "lower" else (value, other)
        ratio = over / under if under else None
    fields: dict[str, Any] = {
        "bench": bench,
        "case": case,
        "value": shortened(value),
        "unit": unit,
        "better": better,
        "against": against,
        "against_value": shortened(other),
        "ratio": shortened(ratio),
    }
    print(json.dumps(fields), flush=True)


def shortened(value: float | None) -> float | None:
    """Return the value with four digits."""
    return None if value is None else float(f"{value:.4g}")


@dataclass(frozen=True)
class Timings:
    """What the rounds of one case gave, e.g. MB/s each."""

    values: list[float]

    @property
    def median(self) -> float:
        """The median round."""
        return statistics.median(self.values)

    def ratio(self, other: Timings) -> float:
        """Return the median of the ratios of the rounds, each with the one beside it."""
        return statistics.median(a / b for a, b in zip(self.values, other.values, strict=False))


def interleaved(cases: dict[str, Callable[[], float]], rounds: int) -> dict[str, Timings]:
    """Run each case once a round, every second round in reverse order; a first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        names = list(cases) if number % 2 else list(reversed(cases))
        values = {name: cases[name]() for name in names}
        say(f"round {number} of {rounds}: " + ", ".join(f"{name} {values[name]:,.0f}" for name in cases))
        if number:
            for name, value in values.items():
                found[name].append(value)
    return {name: Timings(values) for name, values in found.items()}


def cpu_seconds(process: psutil.Process | None = None) -> float:
    """Return the processor seconds that a process (default: this one) has taken so far."""
    times = (process or psutil.Process()).cpu_times()
    return float(times.user + times.system)


def plain_client() -> Any:
    """Return a boto3 client with all that costs time switched off: no checksum, no hash of the body, no retry."""
    return boto3.client(
        "s3",
        config=Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1},
            s3={"payload_signing_enabled": False, "addressing_style": "path"},
        ),
    )


@contextmanager
def s3_server() -> Iterator[tuple[S3Server, Path]]:
    """Give a real S3 server on loopback, with the environment set for it, and its scratch folder."""
    with tempfile.TemporaryDirectory(prefix="kubesae-bench-") as name:
        folder = Path(name)
        (folder / "server").mkdir()
        with S3Server.start(folder / "server") as server:
            before = dict(os.environ)
            os.environ.update(server.environment())
            try:
                yield server, folder
            finally:
                os.environ.clear()
                os.environ.update(before)
