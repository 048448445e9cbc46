"""The comparison of SAEs: what is in it, who beats whom, and when it is made anew."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from kubesae.cli.main import _run
from kubesae.compare import compare, comparison_lines, write_comparison
from kubesae.compare.entries import Comparison, entry_values, with_frontier
from kubesae.compare.page import comparison_page
from kubesae.compare.table import HEAD, cells
from kubesae.errors import ConfigError
from kubesae.experiment import canonical_json
from kubesae.ledger import keys
from kubesae.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


def row(name: str, l0: float, fvu: float, **changes: Any) -> dict[str, Any]:
    values = {
        "name": name, "identity": "i", "layer": 4, "architecture": "topk", "d_sae": 64, "k": 8, "l1_coeff": None,
        "l0_coeff": None,
        "seed": 0, "order_seed": 0, "lr": 1e-3, "step": 90, "epoch": 3, "l0": l0, "fvu": fvu, "dead_share": 0.25,
        "val_loss": fvu, "ce_recovered": None, "sha256": "s",
    }  # fmt: skip
    return values | changes


def metadata(**changes: Any) -> dict[str, Any]:
    values = {
        "config": {"architecture": "topk", "d_model": 8, "d_sae": 64, "k": 8},
        "training": {"seed": 3, "order_seed": 1, "lr": 1e-3},
        "metrics": {"epoch": 2, "l0": 8.0, "fvu": 0.3, "dead_share": 0.1, "val_loss": 0.3},
        "identity": "i", "layer": 4, "sha256": "s", "step": 60, "l1_coeff": 1e-3,
    }  # fmt: skip
    return values | changes


def put_sae(store: Store, name: str, **changes: Any) -> None:
    store.put(f"{keys.checkpoint_folder(name, 60)}metadata.json", canonical_json(metadata(**changes)))
    store.put(keys.best(name), canonical_json({"checkpoint": "checkpoints/step-00000060"}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "output"))


def frontier(*rows: dict[str, Any]) -> set[str]:
    return {entry.name for entry in with_frontier(rows) if entry.frontier}


def test_the_frontier_is_what_no_other_one_beats() -> None:
    assert frontier() == set()
    assert frontier(row("a", 8, 0.3)) == {"a"}
    assert frontier(row("a", 8, 0.3), row("b", 16, 0.2), row("c", 16, 0.25), row("d", 9, 0.3)) == {"a", "b"}
    assert frontier(row("a", 8, 0.3), row("twin", 8, 0.3)) == {"a", "twin"}


def test_other_layers_and_data_are_not_compared() -> None:
    assert frontier(row("a", 8, 0.3), row("b", 9, 0.4, layer=5), row("c", 9, 0.4, identity="j")) == {"a", "b", "c"}


def test_entries_are_sorted_by_layer_and_l0() -> None:
    entries = with_frontier([row("c", 1, 0.1, layer=9), row("b", 9, 0.1), row("a", 8, 0.3)])
    assert [entry.name for entry in entries] == ["a", "b", "c"]


def test_an_evaluation_counts_for_its_own_weights_alone() -> None:
    loss = {"cross_entropy": {"recovered_zero": 0.9}}
    assert entry_values("a", metadata(), None)["ce_recovered"] is None
    assert entry_values("a", metadata(), {"sae_sha256": "s", **loss})["ce_recovered"] == 0.9
    assert entry_values("a", metadata(), {"sae_sha256": "other", **loss})["ce_recovered"] is None
    assert entry_values("a", metadata(), {"sae_sha256": "s", "cross_entropy": None})["ce_recovered"] is None


@pytest.mark.parametrize(
    ("architecture", "l1_coeff", "l0_coeff", "cell"),
    [("relu", 2e-3, None, "0.002"), ("gated", 2e-3, None, "0.002"), ("jumprelu", None, 2e-3, "0.002")],
)
def test_a_coefficient_has_its_name(
    architecture: str, l1_coeff: float | None, l0_coeff: float | None, cell: str
) -> None:
    about = metadata(config={"architecture": architecture, "d_sae": 64, "k": None}, l1_coeff=2e-3)
    (entry,) = with_frontier([entry_values("a", about, None)])
    assert (entry.k, entry.l1_coeff, entry.l0_coeff) == (None, l1_coeff, l0_coeff)
    assert cells(entry)[HEAD.index("k / coeff")] == cell


def test_with_k_there_is_no_coefficient() -> None:
    (entry,) = with_frontier([entry_values("a", metadata(), None)])
    assert (entry.k, entry.l1_coeff, entry.l0_coeff) == (8, None, None)
    assert cells(entry)[HEAD.index("k / coeff")] == "8"


def test_imported_ones_are_left_out_by_name(store: Store) -> None:
    put_sae(store, "theirs", imported={"format": "sae-lens"}, training=None, metrics=None)
    comparison = write_comparison(store)
    assert comparison.saes == ()
    assert list(comparison_lines(comparison))[-1].startswith("theirs is left out: it was trained elsewhere")


def test_what_lies_in_the_store(store: Store) -> None:
    put_sae(store, "b")
    put_sae(store, "a", layer=5)
    store.put(keys.checkpoint_folder("new", 3) + "metadata.json", b"{}")  # no epoch of it has ended
    store.put(keys.evaluation("b"), canonical_json({"sae_sha256": "s", "cross_entropy": {"recovered_zero": 0.75}}))
    comparison = write_comparison(store)
    assert [(one.name, one.layer, one.seed, one.ce_recovered) for one in comparison.saes] == [
        ("b", 4, 3, 0.75),
        ("a", 5, 3, None),
    ]
    assert Comparison.model_validate_json(store.read(keys.SWEEP)) == comparison
    before = store.read(keys.SWEEP_PAGE)
    assert write_comparison(store) == comparison
    assert store.read(keys.SWEEP_PAGE) == before


def test_damaged_ones_are_left_out_by_name(store: Store) -> None:
    put_sae(store, "good")
    put_sae(store, "bad", metrics={})
    put_sae(store, "worse", lr="x", training={"seed": 0, "lr": "fast"})
    store.put(keys.best("worst"), b"no json")
    store.put(keys.best("moved"), canonical_json({"checkpoint": "checkpoints/step-00000001"}))
    comparison = write_comparison(store)
    assert [one.name for one in comparison.saes] == ["good"]
    assert [one.name for one in comparison.left_out] == ["bad", "worse", "worst"]
    assert str(store.url) not in store.read(keys.SWEEP).decode()
    assert "KeyError: 'epoch'" in comparison.left_out[0].reason
    assert any("bad is left out" in line for line in comparison_lines(comparison))
    assert "worst is left out" in store.read(keys.SWEEP_PAGE).decode()


def test_nothing_to_compare_is_said(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"No SAE has been trained at .* yet\. Run `kubesae train` first"):
        compare(store)


def test_the_table_has_a_line_an_sae() -> None:
    entries = with_frontier([row("narrow", 8, 0.3), row("wide", 8, 0.25, d_sae=65536, ce_recovered=0.9)])
    lines = list(comparison_lines(Comparison(saes=tuple(entries), left_out=())))
    assert lines[0].split() == ["SAE", "layer", "architecture", "k", "/", "coeff", "width", "seed", "lr", "L0", "FVU",
                                "dead", "CE", "recovered"]  # fmt: skip
    assert lines[1].split() == ["wide", "4", "topk", "8", "65,536", "0", "0.001", "8.0", "0.2500", "25.00%", "0.9000",
                                "best"]  # fmt: skip
    assert lines[2].split()[-1] == "-"
    assert lines[3].startswith("best: no other SAE")


def test_the_page_is_whole_and_loads_nothing() -> None:
    rows = [row("a", 8, 0.3), row("b", 16, 0.2), row("<c>", 16, 0.25), row("d", 16, 0.25, layer=5)]
    page = comparison_page(Comparison(saes=tuple(with_frontier(rows)), left_out=()))
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) == 2
    for chart in charts:
        ET.fromstring(chart)
    assert charts[0].count("<circle") == 3
    assert charts[0].count("<polyline") == 1
    assert len(re.search(r'points="([^"]+)"', charts[0])[1].split()) == 2
    assert "&lt;c&gt;" in page
    assert "<c>" not in page
    assert "http" not in page
    assert "prefers-color-scheme: dark" in page


def test_training_evaluation_and_the_command_make_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(tmp_path / "data")
    layout = ["--tokens", "4000", "--context", "64", "--contexts-per-part", "32", "--contexts-per-block", "4"]
    assert _run(["fixture", data, "--layers", "0", *layout]) == 0
    store = open_store(data)
    for name in ("a", "b"):
        flags = ["--d-sae", "64", "--batch-size", "512", "--epochs", "1", "--sae-name", name]
        assert _run(["train", "--data", data, *flags]) == 0
        assert [one["name"] for one in json.loads(store.read(keys.SWEEP))["saes"]] == ["a", "b"][: "ab".index(name) + 1]
    for key in (keys.SWEEP, keys.SWEEP_PAGE):
        store.delete(key)
    assert _run(["evaluate", "--data", data, "--sae-name", "a", "--ce-contexts", "0"]) == 0
    assert store.exists(keys.SWEEP_PAGE)
    capsys.readouterr()
    assert _run(["compare", "--data", data]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("SAE ")
    assert f"Sweep: {store.url_of(keys.SWEEP_PAGE)}" in printed
    assert _run(["compare", "--data", data, "--json"]) == 0
    assert capsys.readouterr().out.strip() == store.read(keys.SWEEP).decode()
