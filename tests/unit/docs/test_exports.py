"""Every command of docs/exports.md runs, and its snippets open what the commands write."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from exported import answers
from kubesae.browse.page import write_page
from kubesae.cli.main import _run
from kubesae.evaluate import evaluate
from kubesae.experiment import Interpret
from kubesae.export import FORMATS
from kubesae.features import write_answers
from kubesae.interpret import interpret
from kubesae.store import open_store
from small_experiment import small_experiment, write_small
from small_sae import write_sae

PAGE = (Path(__file__).parents[3] / "docs" / "exports.md").read_text()
SAE = "layer-012-topk-4608"


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """Work where `runs/demo` holds what the demo leaves there, small, interpreted and evaluated."""
    store = open_store(str(tmp_path / "runs" / "demo"))
    write_small(store, layers=[12])
    write_sae(store, SAE, layer=12)
    stored = interpret(store, store, SAE, Interpret(top_k=6, samples=5, context_tokens=4)).stored
    write_answers(store, SAE, stored.info.to_json(), answers(), coactivation_rows=1003)
    write_page(store, store, stored)
    evaluate(small_experiment(store.url, layers=[12]), store, store, SAE, 0)
    monkeypatch.chdir(tmp_path)


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_write_and_what_runs_here_opens_it(demo, capsys):
    done = []
    for block in blocks("bash"):
        arguments = shlex.split(block)[1:]
        if "0-99" in arguments:
            arguments[arguments.index("0-99")] = "0-9"  # of 24 features
        assert _run(arguments) == 0, capsys.readouterr()
        done.append(arguments[arguments.index("--format") + 1])
        assert f"written for {done[-1]}" in capsys.readouterr().out
    assert done == list(FORMATS)
    (snippet,) = (text for text in blocks("python") if "pandas" in text)
    names = {}
    exec(compile(snippet, "docs/exports.md", "exec"), names)
    assert len(names["most"]) == 10


def test_the_other_snippets_import_what_the_commands_name():
    """Their libraries are not here: tests/interop/test_exports.py runs the same calls with them."""
    loading = " ".join(made.loading("x") for made in FORMATS.values())
    for snippet in blocks("python"):
        compile(snippet, "docs/exports.md", "exec")
        for name in re.findall(r"^from \S+ import (.+)$", snippet, re.MULTILINE):
            assert all(word in loading for word in name.split(", "))


def test_the_table_names_the_formats_and_the_versions_that_were_tested():
    for made in FORMATS.values():
        (row,) = re.findall(rf"^\| `{made.name}` \|.*$", PAGE, re.MULTILINE)
        assert made.tested_with in row
        assert (" no |" in row) == bool(made.whole)
