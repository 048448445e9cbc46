"""The tokens that features raise and lower, against all effects of all features on all tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from engine_outputs import source_of
from kubesae.features.answers import LOGITS
from kubesae.interpret.answers.logits import logits_table
from kubesae.model.head import Head, load_head
from tiny_models import VOCABULARY, save_model

if TYPE_CHECKING:
    from pathlib import Path

FEATURES, D_MODEL = 30, 32


def decoder() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(FEATURES, D_MODEL, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("block", [1 << 24, 3 * VOCABULARY, 1])
def test_they_are_the_first_of_all_tokens(tmp_path: Path, architecture: str, block: int) -> None:
    save_model(tmp_path, architecture)
    head, W_FD = load_head(source_of(tmp_path)), decoder()
    table = logits_table(head, W_FD, 10, block)
    assert table.schema == LOGITS
    assert table["feature"].to_pylist() == list(range(FEATURES))
    for row, effect_V in zip(table.to_pylist(), head.effect(W_FD), strict=True):
        ranked = effect_V.sort(descending=True, stable=True)
        assert row["high_tokens"] == ranked.indices[:10].tolist()
        assert row["high_values"] == pytest.approx(ranked.values[:10].tolist(), abs=1e-5)
        assert row["low_tokens"] == ranked.indices[-10:].flip(0).tolist()
        assert row["low_values"] == pytest.approx(ranked.values[-10:].flip(0).tolist(), abs=1e-5)
        assert row["low_values"][0] < 0 < row["high_values"][0]


def test_ids_that_the_tokenizer_does_not_have_are_left_out() -> None:
    output = torch.nn.Linear(D_MODEL, 12, bias=False)
    head, W_FD = Head(torch.nn.Identity(), output), decoder()
    for tokens in (5, 12, 20):
        table = logits_table(head, W_FD, 10, tokens=tokens)
        found = {token for row in table["high_tokens"].to_pylist() for token in row}
        assert found == set(range(min(tokens, 12)))
        assert {len(row) for row in table["low_tokens"].to_pylist()} == {min(tokens, 10)}


def test_equal_effects_come_by_token_id() -> None:
    output = torch.nn.Linear(D_MODEL, 8, bias=False)
    with torch.no_grad():
        output.weight.copy_(torch.ones(8, D_MODEL))
    table = logits_table(Head(torch.nn.Identity(), output), torch.ones(1, D_MODEL), 3)
    assert table["high_tokens"].to_pylist() == table["low_tokens"].to_pylist() == [[0, 1, 2]]
