"""Environments of other libraries, in which tests ask them: `bench/support/environment.py` makes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python_of(name: str) -> str:
    """Return the interpreter of another library's environment (`bench/rivals/<name>.txt`), made at the first use."""
    code = f"from bench.support.environment import python_of; print(python_of({name!r}))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["jobs", "tests/support"])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()
