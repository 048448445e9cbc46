"""A user's machine, on which the messages of docs/troubleshooting.md are provoked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import huggingface_hub
import yaml

from kubesae.cli.main import _run
from kubesae.sae.formats import export_sae
from kubesae.store import open_store
from random_sae import random_sae

TRAIN = ["--d-sae", "64", "--batch-size", "1024", "--epochs", "1", "--lr-warmup", "0"]

# The real command line in a process that may take so many bytes more than it has after a small run of the same command,
# for which all libraries were loaded.
LIMITED = """
import os, resource, sys
from kubesae.cli.main import _run, main
extra, small, *arguments = sys.argv[1:]
assert _run(small.split()) == 0
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * os.sysconf("SC_PAGE_SIZE") + int(extra)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main(arguments)
"""


class Machine:
    """A user's machine: a tiny model, a corpus, an experiment file, and the command line."""

    def __init__(self, folder, inputs, capsys, monkeypatch):
        self.folder = folder
        self.inputs = inputs
        self.capsys = capsys
        self.monkeypatch = monkeypatch
        monkeypatch.chdir(folder)

    def file(self, name="experiment.yaml", **changes):
        """Write an experiment file with these changes and return its path."""
        values = {
            "data": str(self.folder / "data"),
            "model": str(self.inputs / "model"),
            "layers": [1],
            "corpora": [{"name": "words", "source": str(self.inputs / "corpus"), "format": "text"}],
            "tokens": 4_000,
            "num_shards": 2,
            "context": 32,
            "contexts_per_part": 16,
            "contexts_per_block": 4,
            "collect": {"threads": 1},
        }
        path = self.folder / name
        path.write_text(yaml.safe_dump(values | changes))
        return path

    def corpus(self, **changes):
        return [{"name": "words", "source": str(self.inputs / "corpus"), "format": "text"} | changes]

    def run(self, *arguments):
        """Run the command line in this process; return what it prints."""
        self.capsys.readouterr()
        _run([str(argument) for argument in arguments])
        return "".join(self.capsys.readouterr())

    def fixture(self, data="data", *flags):
        """Write a synthetic experiment, ready to train on, and return its prefix."""
        place = data if "://" in data else str(self.folder / data)
        layout = ["--tokens", "8000", "--context", "64", "--contexts-per-part", "32", "--contexts-per-block", "4"]
        self.run("fixture", place, "--layers", "0", *layout, *flags)
        return place

    def train(self, data, *flags):
        return self.run("train", "--data", data, *TRAIN, *flags)

    def process(self, *arguments, prefix=(sys.executable, "-m", "kubesae")):
        """Start the command line as a process of its own."""
        return subprocess.Popen(
            [*prefix, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def limited(self, extra, small, *arguments):
        """Run it with `extra` bytes more than the command `small` has taken; return what it prints."""
        process = self.process(*arguments, prefix=(sys.executable, "-c", LIMITED, str(extra), small))
        printed, _ = process.communicate(timeout=100)
        assert process.returncode == 1, printed
        return printed


def prepared_then(machine, command, **changes):
    machine.run("prepare", machine.file())
    return machine.run(*command, machine.file(**changes))


def collected_then(machine, command, **changes):
    prepared_then(machine, ["pilot"], pilot={"tokens": 100, "chunk": 100})
    return machine.run(*command, machine.file(**changes))


def hubless(machine, **changes):
    machine.monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return machine.run("prepare", machine.file(**changes))


def talking(machine, template=None, messages=({"role": "user", "content": "red?"},)):
    """Prepare conversations, with a tokenizer that has this chat template."""
    shutil.copytree(machine.inputs / "model", machine.folder / "talking")
    if template:
        (machine.folder / "talking" / "chat_template.jinja").write_text(template)
    (machine.folder / "talks.jsonl").write_text(json.dumps({"messages": [*messages], "id": 1}) + "\n")
    corpora = [{"name": "talks", "source": str(machine.folder / "talks.jsonl"), "messages": ["messages"]}]
    return machine.run("prepare", machine.file(model=str(machine.folder / "talking"), corpora=corpora))


def sweep(machine, *saes):
    """Train several SAEs of synthetic data."""
    usual = {"d_sae": 64, "batch_size": 1024, "epochs": 1, "lr_warmup": 0}
    return machine.run("train", machine.file(data=machine.fixture(), layers=[0], sae=[usual | sae for sae in saes]))


def exported(machine, name, architecture="topk", d_model=64):
    """Write an SAE in the format of another library; return its folder."""
    folder = machine.folder / name
    export_sae(random_sae(architecture, d_model), name, open_store(str(folder)))
    return folder


def imported(machine, name, folder):
    data = machine.folder / "data"
    if not data.exists():
        machine.fixture()
    flags = ["--from", folder, "--sae-name", "theirs", "--layer", "0"]
    return machine.run("import", "--data", data, "--format", name, *flags)


def planned_too_large(machine):
    model = {"model": "moonshotai/Kimi-K2-Thinking", "layers": [45]}
    return machine.run("plan", machine.file(**model), "--gpu", "l40s")


def planned_unknown(machine):
    (machine.folder / "model").mkdir()
    (machine.folder / "model" / "config.json").write_text('{"model_type": "new"}')
    return machine.run("plan", machine.file(model="model"))


def same_name_other_settings(machine):
    data = machine.fixture()
    machine.train(data, "--sae-name", "a")
    return machine.train(data, "--sae-name", "a", "--lr", "1e-5")


def two_saes(machine):
    data = machine.fixture()
    machine.train(data, "--sae-name", "a")
    machine.train(data, "--sae-name", "b")
    return machine.run("evaluate", "--data", data, "--ce-contexts", "0")


def in_the_way(machine):
    (machine.folder / "file").touch()
    return machine.run("prepare", machine.file(data=str(machine.folder / "file" / "below")))


def imported_twice(machine):
    folder = exported(machine, "sparsify")
    assert "imported" in imported(machine, "sparsify", folder)
    return imported(machine, "sparsify", folder)


def streamed(machine, change):
    """Collect by the streamed engine from a model that `change` was made to, a function of its folder."""
    model = machine.folder / "model"
    shutil.copytree(machine.inputs / "model", model)
    machine.run("prepare", machine.file(model=str(model)))
    change(model)
    return machine.run("collect", machine.file(model=str(model), collect={"engine": "streamed"}), "--all")


def packed_otherwise(model):
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
