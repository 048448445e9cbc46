"""The demo as a benchmark: quality of its SAE, seconds of each stage, peak memory.

    make bench NAME=demo

Rows: fvu, fvu-all-rows, fvu-pca32, flagged-share, l0, dead-share, seconds-STAGE, peak-rss. The demo's own output goes
to standard error. `against` for `fvu` is the FVU of a rank-32 PCA: the best linear code of as many numbers as the SAE
has active features.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from kubesae.cli.demo import SAE


def row(
    case: str, value: float, unit: str, better: str = "lower", against: str | None = None, other: float | None = None
) -> None:
    """Print one row."""
    ratio = None if other is None else (other / value if better == "lower" else value / other)
    fields = {
        "bench": "demo",
        "case": case,
        "value": value,
        "unit": unit,
        "better": better,
        "against": against,
        "against_value": other,
        "ratio": ratio,
    }
    print(json.dumps(fields), flush=True)


def run(folder: Path) -> dict[str, float]:
    """Run the demo in a process of its own; return the seconds of its stages."""
    demo = [sys.executable, "-m", "kubesae", "demo", str(folder), "--json"]
    with subprocess.Popen(demo, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ourselves
        last = ""
        for last in process.stdout or ():
            sys.stderr.write(last)
    if process.returncode:
        sys.exit(process.returncode)
    seconds: dict[str, float] = json.loads(last)
    return seconds


def main() -> None:
    """Run the demo once in an empty folder and print its rows."""
    with tempfile.TemporaryDirectory() as name:
        seconds = run(Path(name))
        found: dict[str, Any] = json.loads((Path(name) / "sae" / SAE / "evaluation.json").read_text())
    row("fvu", found["fvu"], "ratio", against="rank-32 PCA", other=found["fvu_pca32"])
    row("fvu-all-rows", found["fvu_all_rows"], "ratio")
    row("fvu-pca32", found["fvu_pca32"], "ratio")
    row("flagged-share", found["flagged_share"], "ratio")
    row("l0", found["l0"], "features")
    row("dead-share", found["dead_share"], "ratio")
    for stage, spent in seconds.items():
        row(f"seconds-{stage}", round(spent, 1), "s")
    row("seconds-total", round(sum(seconds.values()), 1), "s")
    row("peak-rss", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, "bytes")


if __name__ == "__main__":
    main()
