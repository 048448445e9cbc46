"""The encoder's product in slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.sae import encoder
from kubesae.sae.encoder import SlicedEncoder
from sae_oracle import rows_and_weights

if TYPE_CHECKING:
    import pytest


def test_slices_are_the_product_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    x_BD, weights = rows_and_weights(11, 6, 24)
    expected_BF = x_BD @ weights.W_enc_FD.T + weights.b_enc_F
    monkeypatch.setattr(encoder, "_SLICE_ROWS", 0)
    monkeypatch.setattr(encoder, "_SLICE", 3 * 24)
    slices = list(SlicedEncoder(weights, torch.float64, x_BD.device).slices(x_BD))
    assert [len(z_BF) for z_BF in slices] == [3, 3, 3, 2]
    torch.testing.assert_close(torch.cat(slices), expected_BF)


def test_entries_above_a_floor_are_those_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    x_BD, weights = rows_and_weights(11, 6, 24)
    z_BF = x_BD @ weights.W_enc_FD.T + weights.b_enc_F
    monkeypatch.setattr(encoder, "_SLICE_ROWS", 1)
    monkeypatch.setattr(encoder, "_SLICE", 0)
    code = SlicedEncoder(weights, torch.float64, x_BD.device).above(x_BD, 0.7)
    torch.testing.assert_close(code.dense(24), z_BF * (z_BF > 0.7))
