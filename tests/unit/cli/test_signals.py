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
from small_sae import write_sae

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


SAE = ("--layer", "4", "--d-sae", "24", "--batch-size", "64")
COMMANDS = (
    ("verify", "--mode", "full", "--workers", "2"),
    ("ledger", "--flags"),
    ("train", *SAE, "--grace", "1"),
    ("interpret", "--sae-name", "small"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_command_that_waits_for_the_store_ends_at_once(tmp_path: Path, command: tuple[str, ...]) -> None:
    store = open_store(str(tmp_path))
    write_small(store)
    write_sae(store)
    arguments = [sys.executable, "-c", PROGRAM, *command, "--data", str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "reading\n" in iter(process.stdout.readline, "")
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        try:
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, errors.count("\n")) == (EXIT_INTERRUPTED, 1), errors
    assert errors.startswith("kubesae: Stopped by SIGTERM")
    assert "tart again to go on from" in errors
    assert time.monotonic() - began < SECONDS
