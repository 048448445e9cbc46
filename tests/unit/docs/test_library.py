"""Every snippet of docs/library.md runs as it stands there, over a small store where the page has the demo's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from exported import answers
from kubesae.experiment import Interpret
from kubesae.features import write_answers
from kubesae.interpret import interpret
from kubesae.store import open_store
from small_experiment import D_MODEL, write_small
from small_sae import write_sae
from tiny_models import save_model

ROOT = Path(__file__).parents[3]
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """Work where `runs/demo` holds what the demo leaves there, small."""
    store = open_store(str(tmp_path / "runs" / "demo"))
    write_small(store, layers=[12])
    write_sae(store, "layer-012-topk-4608", layer=12)
    stored = interpret(store, store, None, Interpret(top_k=6, samples=5, context_tokens=4)).stored
    write_answers(store, "layer-012-topk-4608", stored.info.to_json(), answers(), coactivation_rows=1003)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    save_model(tmp_path / "runs" / "inputs" / "model", "llama", hidden_size=D_MODEL, num_hidden_layers=13, **heads)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", ["docs/library.md", "README.md"])
def test_the_snippets_run(page, demo, capsys):
    snippets = SNIPPET.findall((ROOT / page).read_text())
    assert snippets
    names = {}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"{page}, snippet {number}", "exec"), names)
    if page == "docs/library.md":
        printed = capsys.readouterr().out
        assert "1,003 tokens in 16 blocks, 8 wide, stored as bfloat16" in printed
        check_steering(names, printed)
        assert names["reconstruction"].shape == names["acts"].shape
        assert str(names["x"].dtype) == "torch.bfloat16"


def check_steering(names, printed):
    """Compare the contexts with the statistics, and a steered forward pass with one that is not."""
    largest = names["found"].statistics["max"][int(names["feature"])].as_py()
    assert "Feature 0: token 'w2'" in printed
    assert len(re.findall(r"^ *[\d.]+ .*\[w\d+\]", printed, re.MULTILINE)) == 5
    assert float(names["activations"].max()) == largest
    assert len(names["rows"]) == names["found"].statistics["count"][int(names["feature"])].as_py()
    assert float(names["direction"].norm()) == pytest.approx(largest, rel=1e-4)
    assert float(names["push"].norm()) == pytest.approx(largest, rel=1e-4)
    plain = names["model"](names["ids"]).logits[0, -1]
    assert torch.equal(names["logits"](0.0), plain)
    assert not torch.allclose(names["logits"](names["direction"]), plain)
    assert re.search(r"^feature: \d+\.\d+ a logit, most \[.*\]\nrandom: ", printed, re.MULTILINE)
