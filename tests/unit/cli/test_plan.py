"""`kubesae plan` as people call it: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from kubesae.plan import Report
from planned import EXAMPLES, PRICES

BASE = {
    "data": "s3://bucket/x",
    "model": "openai-community/gpt2",
    "layers": [6],
    "context": 1024,
    "corpora": [{"name": "c", "source": "some/dataset"}],
}


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def file(tmp_path):
    """Give a function that writes an experiment file with changes and returns its path."""

    def write(**changes):
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(BASE | changes))
        return path

    return write


def test_the_reference_experiment(run):
    code, out, err = run("plan", EXAMPLES / "02-collection" / "experiment.yaml")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].startswith("streamed engine, 6 h ")
    for part in (
        "1.026 T      32.9 B      594 GB",
        "769 B      24.2 B      445 GB",
        "block         262,144 tokens",
        "in the store  14.35 TB",
        "25 chunks a shard",
        "What does not fit",
        "Where the usual guidance is off",
        "The pilot stores 144 GB",
        "Assumed: matmul_share_dense 0.4",
    ):
        assert part in out, part
    assert max(map(len, lines)) <= 130


def test_json_is_the_documented_object(run, file):
    code, out, _ = run("plan", file(), "--json")
    assert code == 0
    report = Report.model_validate_json(out)
    assert report.format == 1
    assert report.model_dump(mode="json") == json.loads(out)


def test_a_page(run, file, tmp_path):
    code, _, _ = run("plan", file(), "--page", tmp_path / "plan.html")
    page = (tmp_path / "plan.html").read_text()
    assert code == 0
    assert page.count("<svg") == 4
    assert "<script" not in page
    assert page.count("layer 0: ") == 3  # attention, MLP, other
    assert "http" not in page.replace("https://", "").replace("http://www.w3.org", "")


def test_what_cannot_run_ends_with_2_and_says_what_would(run, file):
    code, out, _ = run("plan", file(model="moonshotai/Kimi-K2-Thinking", layers=[45]), "--gpu", "l40s")
    assert code == 2
    assert "It cannot be run as it is: neither engine fits" in out
    assert "  ✗ streamed: a GPU would need 58.7 GB (34.1 GB of it one layer in bfloat16) and has 48.0\n" in out
    assert "    → --gpu a100-80gb: 2 x A100 SXM 80 GB a slot\n" in out


def test_assumptions_can_be_set(run, file):
    _, slow, _ = run("plan", file(), "--json")
    _, fast, _ = run("plan", file(), "--json", "--set", "upload_gb_s=2", "--set", "months-kept=0")
    slow, fast = (Report.model_validate_json(out) for out in (slow, fast))
    assert fast.collection.tokens_per_second == pytest.approx(2 * slow.collection.tokens_per_second)
    assert fast.assumptions.months_kept == 0
    code, out, _ = run("plan", "--assumptions")
    assert code == 0
    assert "upload_gb_s = 1.0\n    to the store" in out


def test_flags_are_laid_over_the_file(run, file):
    _, out, _ = run("plan", file(), "--json", "--tokens", "2e9", "--layers", "11", "--num-shards", "8")
    report = Report.model_validate_json(out)
    assert (report.tokens, report.layers, report.collection.slots) == (2_000_000_000, (11,), 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "mfu"], "kubesae: --set takes NAME=VALUE, not 'mfu'. `kubesae plan --assumptions` lists the names."),
        (["--set", "upload=2"], "kubesae: --set upload=2: there is no assumption 'upload'. Did you mean upload_gb_s?"),
        (["--set", "host_share=2"], "kubesae: --set: one field is not right:\n  host_share: Input should be less"),
        (["--gpu", "h1000"], "kubesae: No GPU is called 'h1000' in the prices of 2026-11. Give --gpu one of: h100, "),
        (
            ["--gpu", "here", "--calibration", "none.json"],
            "kubesae: Cannot read the calibration none.json: No such ",
        ),
        (["--gpus-per-slot", "16"], "kubesae: A slot of 16 GPUs does not fit p5.48xlarge, which has 8. Lower "),
        (["--prices", "none.yaml"], "kubesae: Cannot read the price file none.yaml: No such file or directory. Give "),
        (["--layers", "12"], "kubesae: Layer 12 is out of range: openai-community/gpt2 has layers 0 to 11. Set "),
        (
            ["--context", "2048"],
            "kubesae: `context` is 2048, but openai-community/gpt2 takes at most 1024 tokens. ",
        ),
        (
            ["--page", "no/such/folder/x.html"],
            "kubesae: Cannot write no/such/folder/x.html: No such file ",
        ),
        (["--model", "./nowhere"], "kubesae: Cannot load the config of model './nowhere'"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(run, file, tmp_path, monkeypatch, arguments, message):
    path = file()
    monkeypatch.chdir(tmp_path)
    code, _, err = run("plan", path, *arguments)
    assert code == 2
    assert err.startswith(message)


def test_a_price_file_with_a_mistake_names_the_field(run, file, tmp_path):
    values = PRICES.model_dump(mode="json")
    values["nodes"][0]["gpus"] = 0
    values["nodes"][1]["priec"] = 3
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump(values))
    code, _, err = run("plan", file(), "--prices", path)
    assert code == 2
    assert err.startswith(f"kubesae: {path}: 2 fields are not right:\n")
    assert "nodes.0.gpus: Input should be greater than 0 (it is 0)" in err
    assert "nodes.1.priec: there is no such field." in err


def test_without_an_experiment_it_asks_for_one(run):
    code, _, err = run("plan")
    assert (code, err[:27]) == (2, "kubesae: Which experiment? ")


def test_a_broken_config_is_the_users_to_mend(run, file, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{")
    code, _, err = run("plan", file(model=str(tmp_path / "model")))
    assert code == 2
    assert err.startswith(f"kubesae: Cannot read the config {tmp_path / 'model' / 'config.json'}: ")


def test_help_loads_no_torch():
    program = "import sys; from kubesae.cli.main import group; group(['plan', '--help'], standalone_mode=False); "
    program += "assert not {'torch', 'transformers'} & set(sys.modules), 'loaded'"
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
