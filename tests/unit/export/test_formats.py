"""What all formats promise, and the command."""

import json

import pytest

from exported import interpreted, subject, written
from kubesae.cli import export as command
from kubesae.cli.main import _run
from kubesae.cli.options import SAE_FORMATS
from kubesae.experiment import sha256_hex
from kubesae.export import FORMATS, export
from kubesae.ledger import keys
from kubesae.sae.formats import FORMATS as SAES
from kubesae.store import open_store

SAE = "4-small"


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_says_what_it_is_and_has_the_same_bytes_each_time(name, small_store, tmp_path):
    out = written(small_store, name, tmp_path)
    files = {key: out.read(key) for key in out.list()}
    about = json.loads(files.pop("kubesae.json"))
    assert {key: file["sha256"] for key, file in about["files"].items()} == {
        key: sha256_hex(data) for key, data in files.items()
    }
    opened = subject(small_store)
    assert about["from"] == opened.provenance()
    assert about["exported"] == name
    compile(FORMATS[name].loading(out.url), "", "exec")
    again = written(small_store, name, tmp_path / "again")
    assert {key: again.read(key) for key in again.list() if key != "kubesae.json"} == files


@pytest.mark.parametrize("name", FORMATS)
def test_activations_and_model_are_not_read(name, small_store, tmp_path, monkeypatch):
    monkeypatch.setattr("kubesae.shards.read_block", None)
    opened = subject(small_store)
    read = []
    real = type(small_store).read
    monkeypatch.setattr(
        type(small_store), "read", lambda self, key, *range_: read.append(key) or real(self, key, *range_)
    )
    export(opened, name, open_store(str(tmp_path)))
    assert read
    assert not [key for key in read if key.startswith(keys.layer_folder(4))]


def test_the_command_has_every_format_and_each_says_what_it_does():
    assert list(FORMATS) == list(command.FEATURE_FORMATS)
    assert list(SAES) == list(SAE_FORMATS)
    (option,) = (param for param in command.command.params if param.name == "format_name")
    assert list(option.type.choices) == [*SAES, *FORMATS]
    for name in (*FORMATS, *SAES):
        assert name in command.command.help


def test_the_command_writes_and_refuses(small_store, tmp_path, capsys):
    def run(*arguments):
        code = _run(["export", "--data", small_store.url, "--to", str(tmp_path / "out"), *arguments])
        return code, "".join(capsys.readouterr())

    assert run("--format", "parquet", "--features", "2")[0] == 0
    code, said = run("--format", "parquet")
    assert code == 2
    assert "another export; nothing was written" in said
    for name in ("circuit-tracer", "sae-bench", "sparsify"):
        code, said = run("--format", name, "--features", "2")
        assert code == 2
        assert "--features" in said
    code = _run(["export", "--from", str(tmp_path), "--to", str(tmp_path / "b"), "--format", "delphi"])
    assert code == 2
    assert "not --from" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "sae-bench"])
def test_without_answers_their_fields_are_empty_and_it_is_said(name, tmp_path):
    store = interpreted(tmp_path / "data", answered=False)
    out = written(store, name, tmp_path)
    (sentence,) = json.loads(out.read("kubesae.json"))["missing"]
    assert "`kubesae interpret` writes them" in sentence
    if name == "sae-dashboard":
        (batch,) = (json.loads(out.read(key)) for key in out.list("batch-"))
        assert all(feature[side] == [] for feature in batch["features"] for side in ("pos_str", "neg_values"))
    assert not out.list(f"planted/{SAE}/explanations")
