"""Run an engine over random contexts in a process of its own, and print what it took, as one JSON object.

    python -m bench.support.engine_run FOLDER ENGINE LAYER CONTEXT BATCH BLOCK REPEATS

The first block warms up. `read_bytes` are from the disk, in all; `peak_rss` counts mapped weights, too.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from kubesae.experiment import Experiment
from kubesae.model import resolve_model
from kubesae.model.inputs import Batch
from kubesae.model.resident import ResidentEngine
from kubesae.model.streamed import StreamedEngine


def read_bytes() -> int:
    """Return the bytes that this process has had read from disks."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


def main() -> None:
    """Do what the arguments say."""
    folder, engine, *numbers = sys.argv[1:]
    layer, context, batch, block, repeats = map(int, numbers)
    experiment = Experiment.model_validate(
        {
            "data": "unused",
            "model": folder,
            "layers": [layer],
            "corpora": [{"name": "a", "source": "b"}],
            "context": context,
        }
    )
    source = resolve_model(experiment, hashed=False)
    made = (StreamedEngine if engine == "streamed" else ResidentEngine).load(source, (layer,), "bfloat16", "cpu")
    ids = np.random.default_rng(0).integers(0, source.vocab_size, (block // context, context)).astype(np.uint32)
    batches = [Batch(ids[first : first + batch]) for first in range(0, len(ids), batch)]
    seconds, total = [], torch.zeros((), dtype=torch.float64)
    for _ in range(repeats + 1):
        began = time.perf_counter()
        for _number, _layer, output_BTD in made.run(batches):
            total += output_BTD.sum(dtype=torch.float64)
        seconds.append(time.perf_counter() - began)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "sum": float(total),
                "read_bytes": read_bytes(),
                "peak_rss": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            }
        )
    )


if __name__ == "__main__":
    main()
