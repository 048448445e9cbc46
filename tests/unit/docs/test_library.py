"""Every snippet of docs/library.md runs as it stands there, over a small store where the page has the demo's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubesae.store import open_store
from small_experiment import write_small
from small_sae import write_sae

ROOT = Path(__file__).parents[3]
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """Work where `runs/demo` holds what the demo leaves there, small."""
    store = open_store(str(tmp_path / "runs" / "demo"))
    write_small(store, layers=[12])
    write_sae(store, "layer-012-topk-4608", layer=12)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", ["docs/library.md", "README.md"])
def test_the_snippets_run(page, demo, capsys):
    snippets = SNIPPET.findall((ROOT / page).read_text())
    assert snippets
    names = {}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"{page}, snippet {number}", "exec"), names)
    if page == "docs/library.md":
        assert "1,003 tokens in 16 blocks, 8 wide, stored as bfloat16" in capsys.readouterr().out
        assert names["reconstruction"].shape == names["acts"].shape
        assert str(names["x"].dtype) == "torch.bfloat16"
