"""SIGTERM ends a command at once, with threads in the midst of reads that a store may not answer for minutes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from kubesae.errors import EXIT_INTERRUPTED
from kubesae.store import open_store
from small_experiment import write_small

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 5.0
PROGRAM = """
import os, sys, threading, time
from kubesae.cli.main import main
from kubesae.store.local import LocalStore

def read_into(self, *arguments):
    if threading.current_thread() is not threading.main_thread():
        os.write(1, b"reading\\n")
        time.sleep(60)

LocalStore.read_into = read_into
main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", [("verify", "--mode", "full", "--workers", "2"), ("ledger", "--flags")])
def test_a_command_that_waits_for_the_store_ends_at_once(tmp_path: Path, command: tuple[str, ...]) -> None:
    write_small(open_store(str(tmp_path)))
    arguments = [sys.executable, "-c", PROGRAM, *command, "--data", str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        try:
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, errors.count("\n")) == (EXIT_INTERRUPTED, 1), errors
    assert errors.startswith("kubesae: Stopped by SIGTERM: start again")
    assert time.monotonic() - began < SECONDS
