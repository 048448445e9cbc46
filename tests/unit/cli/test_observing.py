"""doctor, monitor, ledger and trace as people and programs call them: output, exit codes, what they need."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubesae.account import Account
from kubesae.errors import EXIT_DONE, EXIT_USER
from kubesae.ledger import keys
from kubesae.monitor import Snapshot
from kubesae.store import open_store
from kubesae.trace import Traced
from small_experiment import VALUES, small_experiment, write_small

DOCUMENT = Path(__file__).parents[3] / "docs" / "contracts.md"
Run = Any


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Give a prefix with the small experiment, its last part not collected."""
    store = open_store(str(tmp_path / "data"))
    write_small(store)
    store.delete(keys.record(1, 2))
    return store.url


def test_monitor_prints_the_line_of_each_shard(run: Run, data: str) -> None:
    code, out, _ = run("monitor", "--data", data)
    assert code == EXIT_DONE
    lines = out.splitlines()
    assert lines[0] == "Prepare: 1,003 tokens in 2 shards, from planted"
    assert "Shard 0: 502 / 502 tokens (100.0%) - Chunk 3" in lines
    assert "Shard 1: 384 / 501 tokens (76.6%) - Chunk 1" in lines
    assert "Total: 886 / 1,003 tokens (88.3%)" in lines


def test_monitor_as_json_is_one_object_with_the_documented_fields(run: Run, data: str) -> None:
    code, out, _ = run("monitor", "--data", data, "--json")
    assert code == EXIT_DONE
    assert len(out.splitlines()) == 1
    found = Snapshot.model_validate_json(out)
    assert [state.tokens for state in found.collection.shards] == [502, 384]
    assert_documented("monitor", json.loads(out))


def test_monitor_watches_until_every_shard_is_collected(run: Run, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, key = open_store(data), keys.record(1, 2)
    other = open_store(f"{data}-whole")
    write_small(other)
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        store.put(key, other.read(key))

    monkeypatch.setattr("kubesae.cli.monitor.time.sleep", sleep)
    code, out, _ = run("monitor", "--data", data, "--watch", "--json", "--interval", 7)
    assert code == EXIT_DONE
    assert slept == [7.0]
    assert [json.loads(line)["collection"]["tokens"] for line in out.splitlines()] == [886, 1003]


def test_monitor_ends_quietly_when_a_person_has_seen_enough(
    run: Run, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kubesae.cli.monitor.time.sleep", interrupt)
    code, _, err = run("monitor", "--data", data, "--watch")
    assert (code, err) == (EXIT_DONE, "")


def test_ledger_accounts_by_corpus_and_says_where_tokens_are_missing(run: Run, data: str) -> None:
    code, out, _ = run("ledger", "--data", data)
    assert code == EXIT_DONE
    lines = [line.split() for line in out.splitlines()]
    assert ["planted", "1,003", "886", "117"] in lines
    assert ["Total", "1,003", "886", "117"] in lines
    assert ["shard", "1", "501", "384", "117"] in lines
    assert re.search(r"layer 1: 56 first position, \d+ special token, \d+ norm outlier", out)


def test_ledger_as_json_and_csv(run: Run, data: str) -> None:
    code, out, _ = run("ledger", "--data", data, "--json", "--flags", "--documents", "--layer", 4)
    assert code == EXIT_DONE
    found = Account.model_validate_json(out)
    assert (found.total.missing, found.flags_layer) == (117, 4)
    assert_documented("ledger", json.loads(out))
    code, out, _ = run("ledger", "--data", data, "--csv", "--documents")
    rows = list(csv.DictReader(out.splitlines()))
    assert code == EXIT_DONE
    assert sum(int(row["planned"]) for row in rows) == 1003
    assert rows[0].keys() == {"corpus", "document", "planned", "stored", "flagged", "missing"}
    assert run("ledger", "--data", data, "--csv")[1] == (
        "corpus,documents,planned,stored,flagged,missing\nplanted,12,1003,886,,117\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--csv", "--json"], "--csv and --json are two ways to print one thing: give one of them."),
        (["--layer", "1"], "--layer says whose flags are read: give --flags too."),
    ],
)
def test_ledger_refuses_what_contradicts_itself(run: Run, data: str, arguments: list[str], message: str) -> None:
    assert run("ledger", "--data", data, *arguments) == (EXIT_USER, "", f"kubesae: {message}\n")


def test_ledger_lists_the_largest_documents(run: Run, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "more"))
    write_small(store, tokens=3000)
    _, out, _ = run("ledger", "--data", store.url, "--documents")
    assert "... and 10 more documents: --csv prints all" in out.splitlines()


def test_trace_shows_a_row(run: Run, data: str) -> None:
    code, out, _ = run("trace", "--data", data, "--row", 777, "--norm")
    assert code == EXIT_DONE
    lines = out.splitlines()
    assert lines[0] == "Row 777"
    assert re.fullmatch(r"  Text      .*» w\d+«.*", lines[1])
    assert lines[3] == "  Document  document-1-2 (planted), token 75"
    assert lines[4] == "  Place     shard 1, row 275: context 17, token 3"
    assert lines[5] == "  Block     shard 1, part 1, block 1, row 3"
    assert lines[7].startswith("  Stored    layer 1: sample s0001-p000001-b0001 of activations/layer-001/shard-0001/")
    assert lines[8].startswith("  Norm      ")
    code, out, _ = run("trace", "--data", data, "--row", 1002)
    assert (code, out.splitlines()[-1]) == (
        EXIT_DONE,
        "  Stored    not yet: `kubesae collect` goes on from what is committed",
    )


def test_trace_as_json(run: Run, data: str) -> None:
    code, out, _ = run("trace", "--data", data, "--row", 0, "--json")
    assert code == EXIT_DONE
    assert Traced.model_validate_json(out).flags & 1
    assert_documented("trace", json.loads(out))


def test_trace_of_a_row_that_is_not_there(run: Run, data: str) -> None:
    code, _, err = run("trace", "--data", data, "--row", 1003)
    assert (code, err) == (
        EXIT_USER, f"kubesae: There is no row 1,003 at {data}: the data has rows 0 to 1,002.\n"
    )  # fmt: skip


def test_doctor_without_an_experiment_looks_at_the_machine(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code == EXIT_DONE
    assert [line.split("  ")[0] for line in out.splitlines() if line[0] in "✓!✗"][:3] == [
        "✓ Python",
        "✓ CPUs",
        "✓ Memory",
    ]
    assert re.fullmatch(r"✓ \d+ checks passed(, \d+ with a warning)?\.", out.splitlines()[-1])


def test_doctor_says_what_to_mend(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    file = tmp_path / "experiment.yaml"
    lost = [{"name": "lost", "source": str(tmp_path / "*.none")}]
    file.write_text(yaml.safe_dump(VALUES | {"data": str(tmp_path / "data"), "model": "./none", "corpora": lost}))
    code, out, _ = run("doctor", file)
    assert code == EXIT_USER
    assert "✗ Model " in out
    assert "✗ Corpus lost " in out
    assert out.splitlines()[-1].startswith("✗ 2 of ")
    assert all(len(line) <= 80 or " " not in line.strip() for line in out.splitlines() if str(tmp_path) not in line)
    code, out, _ = run("doctor", file, "--json")
    found = json.loads(out)
    assert (code, found["exit_code"]) == (EXIT_USER, EXIT_USER)
    assert {check["name"] for check in found["checks"] if check["status"] == "failed"} == {"Model", "Corpus lost"}
    assert_documented("doctor", found)


def test_the_core_install_is_enough_to_observe(tmp_path: Path) -> None:
    """What `pip install kubesae` brings is all there is: the extras cannot be imported."""
    write_small(open_store(str(tmp_path / "data")))
    experiment = small_experiment(str(tmp_path / "data"))
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
    program = """
import sys

EXTRAS = {"torch", "transformers", "datasets", "pyarrow", "tokenizers", "safetensors", "huggingface_hub"}

class Core:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Core())
from kubesae.cli.main import _run
codes = [_run(["monitor", sys.argv[1]]), _run(["doctor"]), _run(["doctor", sys.argv[1]])]
print(codes)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "experiment.yaml")]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == "[0, 0, 2]"
    assert "Shard 0: 502 / 502 tokens (100.0%) - Chunk 3" in lines
    assert any(line.startswith("✗ Extra batch ") and "torch is not installed" in line for line in lines)
    assert any(line.startswith("✗ Model            not looked at, for lack of ") for line in lines)


def assert_documented(command: str, found: dict[str, Any]) -> None:
    """Every field of a JSON output stands in docs/contracts.md, in the paragraph of its command."""
    paragraph = DOCUMENT.read_text().partition(f"`kubesae {command} --json`")[2].partition("\n\n")[0]
    assert paragraph, f"docs/contracts.md says nothing of `kubesae {command} --json`"
    missing = {name for name in _names(found) if f"`{name}`" not in paragraph}
    assert not missing


def _names(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_names, value.values()))
    if isinstance(value, list):
        return set().union(*map(_names, value))
    return set()
