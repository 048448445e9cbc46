"""Large blocks of memory come back without the system being asked for fresh pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kubesae

CODE = """
import resource, sys
if sys.argv[1] == "keep":
    from kubesae.memory import keep_memory
    keep_memory()
import torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(1 << 25)
before = faults()
for _ in range(10):
    torch.ones(1 << 25)
print(faults() - before)
"""


def faults_of(how: str) -> int:
    path = str(Path(kubesae.__file__).parents[1])
    command = [sys.executable, "-c", CODE, how]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PYTHONPATH": path})
    return int(done.stdout)


def test_blocks_that_come_again_cost_few_faults() -> None:
    pages = 10 * (1 << 27) // 4096
    assert faults_of("keep") < pages / 100
    assert faults_of("as it is") > pages / 100
