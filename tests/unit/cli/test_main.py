"""The command line: documented exit codes, one message for a user's mistake and never a traceback, flags as in YAML."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kubesae.cli import console
from kubesae.cli.main import COMMANDS
from kubesae.cli.options import flag_of, parse_flag, section_fields
from kubesae.errors import EXIT_DONE, EXIT_FAULT, EXIT_INTERRUPTED, EXIT_USER, Interrupted, KubesaeError
from kubesae.experiment import Experiment
from kubesae.ledger import keys, read_identity, record_list
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIXTURE = ["--tokens", "1003", "--context", "16", "--contexts-per-part", "12", "--contexts-per-block", "5"]
BASE = {"data": "out", "model": "m", "layers": [0], "corpora": [{"name": "c", "source": "some/dataset"}]}


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes an experiment file with changes and returns its path."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(BASE | {"data": str(tmp_path / "data")} | changes))
        return path

    return write


@pytest.fixture
def small(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> str:
    """Give a prefix with a small experiment that `kubesae fixture` wrote."""
    data = str(tmp_path / "data")
    assert run("fixture", data, *FIXTURE, "--d-model", 8, "--features", 32)[0] == EXIT_DONE
    return data


def test_an_unknown_field_is_one_message_and_exit_code_2(run: Any, file: Any) -> None:
    path = file(toknes=3)
    for command in ("prepare", "collect", "verify", "pilot", "config"):
        code, out, err = run(command, path)
        assert (code, out) == (EXIT_USER, "")
        assert (
            err == f"kubesae: {path}: one field is not right:\n  toknes: there is no such field. Did you mean tokens?\n"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "nowhere.yaml"], "kubesae: Cannot read the experiment file nowhere.yaml: "),
        (["verify"], "kubesae: Which experiment? Give its YAML file, or --data with a prefix that holds one."),
        (["verify", "--data", "nowhere"], "kubesae: No experiment is recorded at nowhere. Give its YAML file."),
        (["verify", "--data", "gs://bucket/x"], "kubesae: 'gs://bucket/x': no store has the scheme 'gs'."),
        (["config", "nowhere.yaml"], "kubesae: Cannot read the experiment file nowhere.yaml: "),
    ],
)
def test_what_is_not_there_is_exit_code_2(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (EXIT_USER, "")
    assert err.startswith(message)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such-flag"], "No such option"),
        (["--scope", "half"], "Invalid value for '--scope'"),
        (["--tokens", "3"], "No such option"),
    ],
)
def test_a_bad_flag_is_exit_code_2(run: Any, file: Any, arguments: list[str], message: str) -> None:
    code, out, err = run("verify", file(), *arguments)
    assert (code, out) == (EXIT_USER, "")
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "many"], "tokens: Input should be a valid integer"),
        (["--tokens", "-5"], "tokens: Input should be greater than 0 (it is -5)"),
        (["--layers", "1,x"], "layers.1: Input should be a valid integer"),
        (["--layers", "[1"], "--layers is not valid YAML"),
        (["--storage", "int8"], "storage: Input should be 'bfloat16', 'float32' or 'int8-block32'"),
        (["--num-shards", "2000"], "1003 tokens cannot fill 2000 shards"),
    ],
)
def test_a_bad_value_of_a_flag_is_exit_code_2(run: Any, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, out, err = run("fixture", tmp_path / "data", *FIXTURE, *arguments)
    assert (code, out) == (EXIT_USER, "")
    assert message in err
    assert not (tmp_path / "data").exists()


def test_no_such_command(run: Any) -> None:
    code, _, err = run("verfy")
    assert code == EXIT_USER
    assert "No such command" in err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["verify", "--help"], ["--version"]])
def test_help_is_no_mistake(run: Any, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, err) == (EXIT_DONE, "")
    assert "kubesae" in out


def test_help_lists_every_command(run: Any) -> None:
    _, out, _ = run("--help")
    for name, text in COMMANDS.items():
        assert name in out
        assert text in " ".join(out.split())


@pytest.mark.parametrize("spelling", ["--num-shards", "--num_shards"])
def test_flags_may_be_spelt_with_underscores_and_numbers_as_in_yaml(run: Any, tmp_path: Path, spelling: str) -> None:
    data = tmp_path / "data"
    code, out, _ = run("fixture", data, "--tokens", "1e3", spelling, 3, "--contexts_per_block=2", "--layers", "0,2")
    assert code == EXIT_DONE
    assert out == f"✓ 1,000 tokens in 3 shards, layers [0, 2], at {data}\n"
    identity = read_identity(open_store(str(data)))
    assert identity is not None
    assert (identity.tokens, identity.num_shards, identity.layers, identity.contexts_per_block) == (1000, 3, (0, 2), 2)


def test_verify_says_what_it_found(run: Any, small: str) -> None:
    code, out, _ = run("verify", "--data", small, "--mode", "full")
    assert code == EXIT_DONE
    assert "✓ Total tokens: 1,003" in out.splitlines()
    code, out, _ = run("verify", "--data", small, "--json")
    assert code == EXIT_DONE
    assert json.loads(out)["records"] == len(record_list(open_store(small)))


def test_damage_is_exit_code_2_and_named(run: Any, small: str) -> None:
    store = open_store(small)
    store.put(keys.record(0, 0), b"{")
    code, out, _ = run("verify", "--data", small)
    assert code == EXIT_USER
    assert out.startswith(f"✗ 1 thing is wrong:\n  unreadable record: {keys.record(0, 0)}: ")
    code, out, _ = run("verify", "--data", small, "--json")
    assert code == EXIT_USER
    assert json.loads(out)["finding_count"] == 1
    store.put(keys.IDENTITY, b"{")
    code, _, err = run("verify", "--data", small)
    assert code == EXIT_USER
    assert "identity.json is not JSON" in err


def test_a_fixture_is_written_over_nothing(run: Any, small: str) -> None:
    before = open_store(small).list()
    code, _, err = run("fixture", small, *FIXTURE)
    assert code == EXIT_USER
    assert "holds activations already; nothing was touched" in err
    assert open_store(small).list() == before


def test_a_store_that_cannot_be_written_is_exit_code_2(run: Any, file: Any, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    blocked = tmp_path / "a-file" / "data"
    assert run("fixture", blocked, *FIXTURE)[0] == EXIT_USER
    code, _, err = run("prepare", file(data=str(blocked)))
    assert code == EXIT_USER
    assert str(blocked) in err


@pytest.mark.s3
def test_s3_mistakes_are_exit_code_2(run: Any, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run("fixture", f"{s3_bucket}-none/x", *FIXTURE)
    assert code == EXIT_USER
    assert "bucket" in err
    assert run("fixture", f"{s3_bucket}/x", *FIXTURE)[0] == EXIT_DONE
    assert run("verify", "--data", f"{s3_bucket}/x")[0] == EXIT_DONE
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    code, _, err = run("verify", "--data", f"{s3_bucket}/x")
    assert code == EXIT_USER
    assert "kubesae: " in err


def test_collect_needs_to_know_what(run: Any, file: Any) -> None:
    for arguments in ([], ["--all", "--index", "0"]):
        code, _, err = run("collect", file(), *arguments)
        assert code == EXIT_USER
        assert err == "kubesae: Say what to collect: --index I --of N for one worker's shards, or --all.\n"


def test_config_prints_what_can_be_loaded_again(run: Any, file: Any, tmp_path: Path) -> None:
    code, out, _ = run("config", file(tokens=1000))
    assert code == EXIT_DONE
    values = yaml.safe_load(out)
    assert values["tokens"] == 1000
    (tmp_path / "again.yaml").write_text(out)
    assert run("config", tmp_path / "again.yaml")[1] == out
    schema = json.loads(run("config", "--schema")[1])
    assert set(schema["properties"]) == set(Experiment.model_fields)
    assert all("description" in field for field in schema["properties"].values())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KubesaeError("it broke"), EXIT_FAULT),
        (Interrupted("stopped"), EXIT_INTERRUPTED),
        (KeyboardInterrupt(), EXIT_INTERRUPTED),
        (RuntimeError("a bug"), EXIT_FAULT),
    ],
)
def test_every_end_has_its_exit_code(
    run: Any, file: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    from kubesae.cli import config

    def fail(_path: object) -> None:
        raise error

    monkeypatch.setattr(config, "load_experiment", fail)
    assert run("config", file())[0] == code


def test_json_lines_for_collectors_of_logs(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "JSON", False)
    code, out, _ = run("--log-format", "json", "fixture", tmp_path / "data", *FIXTURE)
    assert code == EXIT_DONE
    line = json.loads(out)
    assert line["level"] == "info"
    assert line["message"].startswith("✓ 1,003 tokens")
    code, _, err = run("--log-format", "json", "verify", "nowhere.yaml")
    assert code == EXIT_USER
    assert json.loads(err)["level"] == "error"


def test_the_command_itself_prints_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kubesae", "verify", tmp_path / "nowhere.yaml"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": "jobs"},
    )
    assert done.returncode == EXIT_USER
    assert done.stdout == ""
    assert done.stderr.startswith("kubesae: Cannot read the experiment file")
    assert len(done.stderr.splitlines()) == 1


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from kubesae.cli.main import _run
assert _run(["--help"]) == 0
heavy = set("torch numpy pydantic pyarrow transformers datasets fsspec s3fs botocore yaml rich".split())
assert not heavy & set(sys.modules), sorted(heavy & set(sys.modules))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "jobs"}, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", ["prepare", "collect", "verify", "pilot", "fixture", "config"])
def test_help_of_a_command_imports_no_model_library(command: str) -> None:
    code = f"""
import sys
from kubesae.cli.main import _run
assert _run([{command!r}, "--help"]) == 0
heavy = {{"torch", "pyarrow", "transformers", "datasets", "s3fs", "botocore"}}
assert not heavy & set(sys.modules), sorted(heavy & set(sys.modules))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "jobs"}, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("num_shards", "--num-shards"),
        ("pilot.tokens", "--pilot-tokens"),
        ("collect.forward_batch", "--forward-batch"),
        ("sae.0.l1_coeff", "--l1-coeff"),
        ("sae.0.d_sae", "--d-sae"),
        ("sae.0.max_tokens", "--max-tokens"),
        ("sae.0.seed", "--sae-seed"),
        ("verify.mode", "--verify-mode"),
    ],
)
def test_flags_have_the_names_that_were_promised(field: str, flag: str) -> None:
    assert flag_of(field) == flag


def test_no_two_fields_of_a_command_have_the_same_flag() -> None:
    for sections in (("pilot", "collect"), ("sae",), ("interpret",)):
        fields = ["data", "output", "layers", "chunk", *(f for s in sections for f in section_fields(s))]
        assert len({flag_of(field) for field in fields}) == len(fields)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("tokens", "250_000_000", 250_000_000),
        ("sae.0.lr", "3e-4", 3e-4),
        ("layers", "30,45,55", [30, 45, 55]),
        ("layers", "[7]", [7]),
        ("layers", "7", [7]),
        ("model", "some/model", "some/model"),
        ("data", "s3://bucket/x", "s3://bucket/x"),
        ("bos", True, True),
    ],
)
def test_flags_are_read_as_yaml(field: str, text: object, value: object) -> None:
    assert parse_flag(field, text) == value


def test_a_misspelt_command_is_suggested(run: Any) -> None:
    assert "No such command 'prepaer'. Did you mean prepare?" in run("prepaer")[2]
    assert run("xyz")[2].endswith("Error: No such command 'xyz'.\n")


def test_a_package_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    run: Callable[..., tuple[int, str, str]], small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = run("ledger", "--data", small, "--documents")
    assert code == EXIT_USER
    assert "the package 'pyarrow'" in err
    assert "pip install 'kubesae[batch]'" in err
