"""The whole pipeline by the commands a user types, in processes of their own, over a tiny real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from kubesae.ledger import record_list
from kubesae.store import open_store
from tiny_models import save_model, text

TOKENS = 20_001


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    save_model(folder / "model", "llama")
    (folder / "corpus").mkdir()
    for i in range(400):
        (folder / "corpus" / f"{i}.txt").write_text(text(i))
    return folder


@pytest.fixture
def file(inputs, tmp_path, store_url):
    return write(tmp_path / "experiment.yaml", inputs, store_url)


def write(path, inputs, data, **changes):
    values = {
        "name": "tiny",
        "data": data,
        "model": str(inputs / "model"),
        "layers": [1, 2],
        "corpora": [{"name": "words", "source": str(inputs / "corpus"), "format": "text"}],
        "tokens": TOKENS,
        "num_shards": 2,
        "context": 32,
        "contexts_per_part": 16,
        "contexts_per_block": 4,
        "chunk": 5_000,
        "pilot": {"tokens": 2_000, "chunk": 1_000},
        "sae": [{"layer": 2, "d_sae": 64, "architecture": "topk", "k": 4, "batch_size": 512, "epochs": 2}],
    }
    path.write_text(yaml.safe_dump(values | changes))
    return path


def kubesae(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "kubesae", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.timeout(300)
def test_the_whole_pipeline(file, store_url):
    assert f"✓ {TOKENS:,} tokens prepared in 2 shards" in kubesae("prepare", file)
    assert kubesae("pilot", file).endswith(
        "✓ Found 2 activation chunks per shard\n✓ Total tokens: 2,048\n"
        "✓ Activation shape verified: (n_tokens, 32)\n✓ All chunks valid!\n✓ All checks passed!\n"
    )
    collected = kubesae("collect", file, "--all", "--workers", "2")
    for line in ("Shard 0: 5,000 tokens collected", "Shard 1: Saved chunk 1", "Shard 0: Collection complete!"):
        assert line in collected
    assert f"✓ Total tokens: {TOKENS:,}\n" in kubesae("verify", file, "--mode", "full")
    trained = kubesae("train", file)
    for line in ("Found 5 activation chunks", f"Total activations: {TOKENS:,}", "Epoch 1:", "  Val   - Loss: "):
        assert line in trained
    assert "✓ New best model! (val_loss=" in trained
    evaluated = kubesae("evaluate", file)
    for line in ("  FVU  ", "  shrinkage  ", "  dense features  ", "  alike features  ", "  KL recovered  "):
        assert line in evaluated
    store = open_store(store_url)
    (page,) = (key for key in store.list("sae/") if key.endswith("/evaluation.html"))
    found = json.loads(store.read(page.replace(".html", ".json")))
    assert found["l0_rows"]["quantiles"]["most"] == 4
    assert f"{found['cross_entropy']['kl_spliced']:.4f}" in store.read(page).decode()
    shown = kubesae("interpret", file, "--statistics")
    assert "Top 20 Features by Max Activation:\n 1. Feature " in shown
    feature = shown.split(" 1. Feature ")[1].split(":")[0]
    examples = kubesae("interpret", "--data", store_url, "--feature-id", feature, "--top-k", "3")
    for line in ("Rank 1:", "Rank 3:", "Activation", "Token Index", "Token ID", "Token Text"):
        assert line in examples


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_collection_goes_on_to_the_same_bytes(inputs, tmp_path, number):
    file = write(tmp_path / "a.yaml", inputs, str(tmp_path / "a"))
    undisturbed = write(tmp_path / "b.yaml", inputs, str(tmp_path / "b"))
    for path in (file, undisturbed):
        kubesae("prepare", path)
    kubesae("collect", undisturbed, "--all")
    store = open_store(str(tmp_path / "a"))
    process = subprocess.Popen([sys.executable, "-m", "kubesae", "collect", file, "--all"], stderr=subprocess.PIPE)
    while len(record_list(store)) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    began = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (75 if number == signal.SIGTERM else -9)
    assert time.monotonic() - began < 10
    assert b"Traceback" not in error
    assert len(record_list(store)) < len(record_list(open_store(str(tmp_path / "b"))))
    assert "Resuming after" in kubesae("collect", file, "--all")
    kubesae("verify", file, "--mode", "full")
    one, other = (open_store(str(tmp_path / name)) for name in "ab")
    activations = [key for key in other.list("activations/") if not key.endswith(".txt")]
    assert len(activations) > 10
    named = {key: other.read(key) for key in activations if not key.endswith("index.parquet")}
    assert {key: one.read(key) for key in named} == named


def test_bad_input_is_a_line_and_exit_code_2(inputs, tmp_path):
    good = str(tmp_path / "data")
    cases = [
        ({"toknes": 3}, "toknes: there is no such field. Did you mean tokens?"),
        ({"tokens": "many"}, "tokens: "),
        ({"layers": [2, 99]}, "Layer 99 is out of range"),
        ({"corpora": [{"name": "empty", "source": str(tmp_path / "nothing"), "format": "text"}]}, "no file matches"),
        ({"tokens": "1e9"}, "is too small"),
        ({"data": str(tmp_path / "file" / "below")}, "file"),
    ]
    (tmp_path / "file").write_text("in the way")
    for number, (change, expected) in enumerate(cases):
        file = write(tmp_path / f"{number}.yaml", inputs, **{"data": good} | change)
        assert expected in kubesae("prepare", file, code=2), change


@pytest.mark.s3
def test_refused_credentials_and_missing_buckets_are_exit_code_2(inputs, tmp_path, s3_bucket, monkeypatch):
    file = write(tmp_path / "missing.yaml", inputs, "s3://no-such-bucket-here/prefix")
    assert "no-such-bucket-here" in kubesae("prepare", file, code=2)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    file = write(tmp_path / "wrong.yaml", inputs, f"{s3_bucket}/prefix")
    assert "the store refuses us" in kubesae("prepare", file, code=2)


def test_a_finished_experiment_is_done_again_in_seconds(inputs, tmp_path):
    file = write(tmp_path / "experiment.yaml", inputs, str(tmp_path / "data"), tokens=2_000)
    for _ in range(2):
        kubesae("prepare", file)
        lines = kubesae("collect", file, "--all")
    assert "Loading model" not in lines
    assert lines.count("(collected before)") == 2


def test_json_log_lines(inputs, tmp_path):
    file = write(tmp_path / "experiment.yaml", inputs, str(tmp_path / "data"), tokens=2_000)
    kubesae("prepare", file)
    for line in kubesae("--log-format", "json", "collect", file, "--all").splitlines():
        assert json.loads(line)["level"] == "info"


def test_help_answers_without_loading_what_it_does_not_need():
    heavy = "import sys, kubesae.cli.main; sys.exit(any(m in sys.modules for m in ('torch', 'pyarrow', 's3fs')))"
    assert subprocess.run([sys.executable, "-c", heavy], env=os.environ, check=False).returncode == 0
    assert "Commands:" in kubesae("--help")
