"""`kubesae completion`: a real bash completes commands, flags, values and files, and loads no model library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kubesae.cli.main import COMMANDS, _run

PROGRAM = Path(sys.executable).parent / "kubesae"
BASH = shutil.which("bash")

# What readline does on TAB: put the words into place, call the function, take COMPREPLY. `compopt -o default` has it
# complete file names itself, `-o dirnames` folders; outside of readline that builtin only complains, so it is shown.
TAB = """
compopt() { echo "$2"; }
eval "$(kubesae completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_kubesae_completion kubesae "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def tab():
    """Give a function that returns what bash offers after these words."""

    def press(*words):
        done = subprocess.run(
            [BASH, "--norc", "-c", TAB, "bash", "kubesae", *words],
            env={"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "PYTHONPATH": str(Path("jobs").resolve())},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return set(done.stdout.split())

    return press


@pytest.mark.skipif(BASH is None or not PROGRAM.exists(), reason="needs bash and an installed kubesae")
def test_bash_completes(tab):
    assert tab("") == COMMANDS.keys()
    assert tab("ver") == {"verify"}
    assert tab("train", "--l") == {
        "--layer",
        "--l1-coeff",
        "--l0-coeff",
        "--lr",
        "--lr-warmup",
        "--lr-decay",
        "--lr-decay-shape",
    }
    assert tab("train", "--architecture", "") == {"relu", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"}
    assert tab("verify", "x.yaml", "--mode", "f") == {"full"}
    assert tab("completion", "") == {"bash", "zsh", "fish"}
    assert tab("collect", "fir") == {"default"}
    assert tab("collect", "--data", "fir") == {"dirnames"}


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o"), ("zsh", "#compdef kubesae"), ("fish", "--command")]
)
def test_every_shell_has_its_script(shell, word, capsys):
    assert _run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert word in script
    assert f"_KUBESAE_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize("words", ["kubesae co", "kubesae train --l"])
def test_completing_loads_nothing_heavy(words):
    code = """
import sys
from kubesae.cli.main import main
try:
    main([])
finally:
    heavy = {"torch", "pyarrow", "transformers", "datasets", "s3fs", "botocore"}
    assert not heavy & set(sys.modules), sorted(heavy & set(sys.modules))
"""
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_KUBESAE_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": "jobs"} | variables,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert done.stdout.startswith("plain,")
