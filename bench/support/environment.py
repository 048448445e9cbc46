"""Environments of other people's libraries: made once in the cache from a hash-pinned list, never in ours."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bench.support.measure import say

from kubesae.model.smollm2 import cache_folder

if TYPE_CHECKING:
    from types import TracebackType

ROOT = Path(__file__).parents[2]
RIVALS = ROOT / "bench" / "rivals"


def python_of(name: str) -> Path:
    """Return the interpreter of the environment that `rivals/<name>.txt` lists, made now where it is not there."""
    lock = RIVALS / f"{name}.txt"
    home = cache_folder() / "bench" / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if not python.exists():
        say(f"installing {name} into {home} (once; where it needs torch, several GB) ...")
        uv = subprocess.run([ROOT / "tools" / "setup", "uv"], check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
        partial = home.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        install = ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--python", partial, "-r", lock]
        for arguments in (["venv", "--quiet", "--python", sys.executable, partial], install):
            subprocess.run([uv.stdout.strip(), *arguments], check=True)  # noqa: S603
        partial.rename(home)
    return python


class Rival:
    """A program of `rivals/` that runs beside us: it takes a JSON line and answers with one."""

    def __init__(self, program: str, python: Path, environment: dict[str, str]) -> None:
        """Start it."""
        command = [python, RIVALS / f"{program}.py"]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        """Nothing is left to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer; what it prints else goes to standard error."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        for line in stdout:
            if line.startswith('{"answer":'):
                answer: dict[str, Any] = json.loads(line)["answer"]
                return answer
            sys.stderr.write(line)
        raise RuntimeError(f"{self._process.args} ended without an answer")
