"""Every message of docs/troubleshooting.md is provoked for real, and what is printed is compared with the page.

A message of the page without a producer here, or a producer without its message there, fails.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time

import huggingface_hub
import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from documented import blocks, cells, has, has_lines
from faulty_proxy import FaultyProxy
from kubesae.ledger import keys
from kubesae.store import open_store
from machine import (
    Machine,
    collected_then,
    exported,
    hubless,
    imported,
    imported_twice,
    in_the_way,
    packed_otherwise,
    planned_too_large,
    planned_unknown,
    prepared_then,
    same_name_other_settings,
    streamed,
    sweep,
    talking,
    two_saes,
)
from tiny_models import save_model, text

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    save_model(folder / "model", "llama")
    (folder / "corpus").mkdir()
    for i in range(100):
        (folder / "corpus" / f"{i}.txt").write_text(text(i))
    return folder


@pytest.fixture
def machine(tmp_path, inputs, capsys, monkeypatch):
    return Machine(tmp_path, inputs, capsys, monkeypatch)


# --- the eight symptoms -----------------------------------------------------------------------------------------------


def collect_small(machine):
    """Return the command that collects a small experiment, which is prepared."""
    file = machine.file("small.yaml", data=str(machine.folder / "small"))
    machine.run("prepare", file)
    return f"collect {file} --all"


def out_of_memory_load(machine):
    """Weights of 27 MB where 15 MB are free."""
    model = machine.folder / "model"
    shutil.copytree(machine.inputs / "model", model)
    size = {"hidden_size": 512, "intermediate_size": 8192, "num_hidden_layers": 1, "num_attention_heads": 4}
    large = LlamaForCausalLM(LlamaConfig(vocab_size=256, max_position_embeddings=128, **size))
    large.to(torch.bfloat16).save_pretrained(model)
    file = machine.file(model=str(model), layers=[0])
    machine.run("prepare", file)
    return machine.limited(15 << 20, collect_small(machine), "collect", file, "--all")


def out_of_memory_collect(machine):
    """A mask of 8192 x 8192 does not fit, even for one context."""
    model = machine.folder / "model"
    shutil.copytree(machine.inputs / "model", model)
    config = model / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 128', '"max_position_embeddings": 8192'))
    book = machine.folder / "book.txt"
    book.write_text("".join(text(i) for i in range(200)))
    layout = {"tokens": 8192, "num_shards": 1, "context": 8192, "contexts_per_part": 1, "contexts_per_block": 1}
    corpora = machine.corpus(source=str(book))
    file = machine.file(model=str(model), corpora=corpora, attention_across_documents=False, **layout)
    machine.run("prepare", file)
    return machine.limited(250 << 20, collect_small(machine), "collect", file, "--all")


def out_of_memory_train(machine):
    data = machine.fixture()
    small = f"train --data {data} --d-sae 64 --epochs 1"
    return machine.limited(200 << 20, small, "train", "--data", data, "--d-sae", "2_000_000")


def out_of_memory_sweep(machine):
    """Two SAEs of which one alone would fit."""
    data = machine.fixture()
    file = machine.file(data=data, layers=[0], sae=[{"name": name, "d_sae": 1_000_000} for name in ("a", "b")])
    return machine.limited(200 << 20, f"train --data {data} --d-sae 64 --epochs 1", "train", file)


def out_of_memory_killed(machine):
    """What the kernel does when memory runs out, to the first of two workers."""
    file = machine.file()
    machine.run("prepare", file)
    process = machine.process("collect", file, "--all", "--workers", "2")
    while not (workers := psutil.Process(process.pid).children()):
        time.sleep(0.01)
    workers[0].kill()
    return process.communicate(timeout=60)[0]


def download(machine):
    machine.monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOBODY)
    return machine.run("prepare", machine.file(model="some/model"))


def disk_full(machine):
    """Collect to a small disk, then give it more room and start again, as the page says."""
    data = machine.folder / "data"
    file = machine.file(num_shards=1)
    machine.run("prepare", file)
    data.rename(machine.folder / "prepared")
    data.mkdir()
    script = """
mount -t tmpfs -o size=300k none "$1" || exit 99
cp -r prepared/. "$1"
"$2" -m kubesae collect "$3" --all
mount -o remount,size=64m "$1"
"$2" -m kubesae collect "$3" --all
"""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    process = machine.process(data, sys.executable, file, prefix=command)
    printed, _ = process.communicate(timeout=100)
    if process.returncode == 99 or "unshare failed" in printed:
        pytest.skip("needs user namespaces, to mount a small disk")
    assert process.returncode == 0, printed
    return printed


def stuck(machine):
    """A store that takes connections and never answers."""
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
        machine.monkeypatch.setenv(f"AWS_{name}", value)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        machine.monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        return machine.run("collect", machine.file(data="s3://bucket/prefix"), "--index", "0", "--deadline", "1.5")


def slow_training(machine, request):
    """A store behind a slow line."""
    bucket = request.getfixturevalue("s3_bucket")
    data = machine.fixture(f"{bucket}/prefix", "--contexts-per-block", "16")
    with FaultyProxy(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])) as proxy:
        proxy.others = "slow"
        machine.monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        return machine.train(data, "--shuffle-rows", "1024")


def poor_reconstruction(machine):
    return machine.train(machine.fixture(), "--d-sae", "128")


def too_sparse(machine):
    return machine.train(machine.fixture(), "--d-sae", "32")


def too_dense(machine):
    return machine.train(machine.fixture(), "--d-sae", "512", "--l1-coeff", "1e-6")


def corrupted(machine):
    store = open_store(machine.fixture())
    tar = next(key for key in store.list(keys.layer_folder(0)))
    data = bytearray(store.read(tar))
    data[len(data) // 2] ^= 1
    store.put(tar, bytes(data))
    return machine.run("verify", "--data", store.url, "--mode", "full")


SYMPTOMS = {
    ("out-of-memory-load",): out_of_memory_load,
    ("out-of-memory-collect",): out_of_memory_collect,
    ("out-of-memory-train",): out_of_memory_train,
    ("out-of-memory-sweep",): out_of_memory_sweep,
    ("out-of-memory-killed",): out_of_memory_killed,
    ("download",): download,
    ("disk-full", "disk-full-resumed"): disk_full,
    ("stuck",): stuck,
    ("slow-training",): slow_training,
    ("poor-reconstruction",): poor_reconstruction,
    ("too-sparse",): too_sparse,
    ("too-dense",): too_dense,
    ("corrupted",): corrupted,
}


def marked(table, on_s3):
    """Return the table's keys as parameters; those that need the S3 server are marked."""
    return [
        pytest.param(
            key, marks=[pytest.mark.s3] if table[key] in on_s3 else [], id=key if isinstance(key, str) else key[0]
        )
        for key in table
    ]


@pytest.mark.parametrize("names", marked(SYMPTOMS, [slow_training]))
def test_a_symptom_prints_what_the_page_says(names, machine, request):
    producer = SYMPTOMS[names]
    printed = producer(machine, request) if producer is slow_training else producer(machine)
    for name in names:
        assert has_lines(blocks()[name], printed), printed


# --- the other messages -----------------------------------------------------------------------------------------------


def stopped(machine):
    file = machine.file()
    machine.run("prepare", file)
    process = machine.process("collect", file, "--all")
    first = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 75
    return first + printed


def no_bucket(machine, request):
    bucket = request.getfixturevalue("s3_bucket")
    return machine.run("prepare", machine.file(data=f"{bucket}-none/prefix"))


def wrong_secret(machine, request):
    bucket = request.getfixturevalue("s3_bucket")
    machine.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    return machine.run("prepare", machine.file(data=f"{bucket}/prefix"))


def imported_with(machine, name, **changes):
    """Import an SAE whose config says something else."""
    folder = exported(machine, name)
    config = folder / "cfg.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    return imported(machine, name, folder)


def imported_pickle(machine):
    folder = exported(machine, "dictionary-learning")
    torch.save({"weight": [torch.zeros(2)]}, folder / "ae.pt")
    return imported(machine, "dictionary-learning", folder)


def exported_by_command(machine, *flags, architecture="topk"):
    """Export an SAE that has been imported, by the command."""
    imported(machine, "sae-lens", exported(machine, "sae-lens", architecture))
    return machine.run("export", "--from", machine.folder / "data" / "sae" / "theirs", "--format", "sparsify", *flags)


def evaluated_on_letters(machine, model=None):
    """Collect documents of one letter in contexts of two tokens, of which the first ones are flagged, and evaluate."""
    letters = machine.folder / "letters"
    letters.mkdir()
    for i in range(300):
        (letters / f"{i}.txt").write_text("a")
    model = model or machine.inputs / "model"
    file = machine.file(model=str(model), corpora=machine.corpus(source=str(letters)), context=2, tokens=512)
    machine.run("prepare", file)
    machine.run("collect", file, "--all")
    width = json.loads((model / "config.json").read_text())["hidden_size"]
    origin = exported(machine, "sparsify", d_model=width)
    machine.run("import", file, "--format", "sparsify", "--from", origin, "--sae-name", "theirs", "--layer", "1")
    return machine.run("evaluate", file, "--sae-name", "theirs", "--ce-contexts", "0")


def nothing_but_flags(machine):
    """The letter is a special token too."""
    model = machine.folder / "model"
    shutil.copytree(machine.inputs / "model", model)
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token": "a"}))
    return evaluated_on_letters(machine, model)


OTHERS = {
    "Cannot read the experiment file <path>: <reason>": lambda m: m.run("verify", "nowhere.yaml"),
    "<field>: there is no such field. Did you mean <field>?": lambda m: m.run("config", m.file(toknes=3)),
    "Which experiment? Give its YAML file, or --data with a prefix that holds one.": lambda m: m.run("train"),
    "Cannot load the tokenizer of model <id> (there is no such local folder): <reason>": lambda m: hubless(
        m, model="a/b"
    ),
    "Cannot load the dataset <id> of corpus <name> (there is no such local path): <reason>": lambda m: hubless(
        m, corpora=m.corpus(source="wikitxt", format="auto")
    ),
    "Corpus <name>: no file matches <path>": lambda m: m.run("prepare", m.file(corpora=m.corpus(source="./corpsu"))),
    "there is no preset <name>: choose one of <names>, or write": lambda m: m.run(
        "prepare", m.file(corpora=[{"preset": "wiki"}])
    ),
    "the model's tokenizer has no chat template to render them by": talking,
    "column <name> holds no messages (<what>).": lambda m: talking(m, "{{ messages }}", []),
    "the tokenizer's chat template refuses its messages (<roles>): <reason>": lambda m: talking(m, "{{ 1 / 0 }}"),
    "Corpus <name> is too small: <path> gives <n> contexts of <n> tokens": lambda m: m.run(
        "prepare", m.file(tokens=10_000_000)
    ),
    "Layer <n> is out of range: <model> has layers 0 to <n>.": lambda m: m.run("prepare", m.file(layers=[99])),
    "The model's weights are quantised by <name>, which the streamed engine does not read.": lambda m: streamed(
        m, packed_otherwise
    ),
    "<path> has no safetensors weights": lambda m: streamed(m, lambda model: (model / "model.safetensors").unlink()),
    "It cannot be run as it is: <reason>": planned_too_large,
    "transformers does not know the architecture <name> of <model>.": planned_unknown,
    "Cannot read the calibration <path>: <reason>": lambda m: m.run(
        "plan", m.file(), "--gpu", "here", "--calibration", "calibration.json"
    ),
    "The data at <prefix> belongs to another experiment; nothing was touched. It differs in": lambda m: collected_then(
        m, ["collect", "--all"], layers=[2]
    ),
    "The tokens at <prefix> were made for another experiment; nothing was touched. They differ in": lambda m: (
        prepared_then(m, ["prepare"], tokens=3_000)
    ),
    "There are no tokens at <prefix> yet.": lambda m: m.run("collect", m.file(), "--all"),
    "No activations have been collected at <prefix> yet.": lambda m: m.run("train", m.file()),
    "Only <n> of <n> tokens are committed at <prefix>.": lambda m: collected_then(m, ["train"]),
    "The SAE <name> at <prefix> was started with other settings; nothing was touched. They differ in": (
        same_name_other_settings
    ),
    "There are several SAEs at <prefix>. Choose one with --sae-name: <names>.": two_saes,
    "There is an SAE <name> at <prefix> already; nothing was touched.": imported_twice,
    "There is no SAE of the format <name> at <path>: it has no <file>.": lambda m: imported(
        m, "sae-lens", exported(m, "sparsify")
    ),
    "The SAE at <path> is <n> wide, the data <n>.": lambda m: imported(
        m, "sparsify", exported(m, "sparsify", d_model=32)
    ),
    "<path>: there should be a tensor <name> with shape <shape>, but": lambda m: imported_with(
        m, "sparsify", num_latents=17
    ),
    "<path> says normalize_activations: <value>.": lambda m: imported_with(
        m, "sae-lens", normalize_activations="expected_average_only_in"
    ),
    "which kubesae does not have": lambda m: imported_with(m, "sparsify", transcode=True),
    "<path> was not read: <reason>. Nothing in it was run.": imported_pickle,
    "The format <name> cannot hold this SAE: <reason>.": lambda m: exported_by_command(
        m, "--to", "out", architecture="relu"
    ),
    "is there and holds something else; nothing was written.": lambda m: exported_by_command(
        m, "--to", exported(m, "sparsify", d_model=32)
    ),
    "All rows of the <n> validation blocks are flagged: there is nothing to evaluate on.": nothing_but_flags,
    "All <n> unflagged rows of the validation blocks are the same: there is no variance to explain.": (
        evaluated_on_letters
    ),
    "Training diverged: at step <n> the loss is <x> and the gradient's norm <x>.": lambda m: m.train(
        m.fixture(), "--lr", "1e9"
    ),
    "<n> of <n> SAEs diverged, the others are trained. Give these other settings:": lambda m: sweep(
        m, {"name": "a"}, {"name": "b", "lr": 1e9}
    ),
    "<n> SAEs have the name <name>. Give each its own": lambda m: sweep(m, {}, {"lr": 1e-3}),
    "--feature-shards is <n>, but there are <n> ranks.": lambda m: m.train(m.fixture(), "--feature-shards", "2"),
    "The <n> features of <name> cannot be shared out evenly over --feature-shards <n>.": lambda m: m.train(
        m.fixture(), "--feature-shards", "3"
    ),
    "Training took <n> steps, too few to judge by.": lambda m: m.train(m.fixture()),
    "<n>% of the features were active on no token of the last epoch": lambda m: m.train(
        m.fixture(), "--d-sae", "4096", "--architecture", "topk", "--k", "1"
    ),
    "cannot be written (<reason>): a file stands where a folder is needed": in_the_way,
    "there is no such bucket": no_bucket,
    "the store refuses us": wrong_secret,
    "Stopped by SIGTERM: start again to go on from what is committed.": stopped,
}
ON_S3 = [no_bucket, wrong_secret]


@pytest.mark.parametrize("message", marked(OTHERS, ON_S3))
def test_a_message_of_the_table_is_printed(message, machine, request):
    producer = OTHERS[message]
    printed = producer(machine, request) if producer in ON_S3 else producer(machine)
    assert has(message, printed), printed
    assert "Traceback" not in printed


def test_the_page_has_these_messages_and_no_others():
    assert sorted(blocks()) == sorted(name for names in SYMPTOMS for name in names)
    assert sorted(cells()) == sorted(OTHERS)
