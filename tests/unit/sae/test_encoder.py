"""The encoder's product in groups of features, and where groups are taken."""

from __future__ import annotations

import torch

from kubesae.sae.encoder import SlicedEncoder, group_size
from sae_oracle import rows_and_weights


def test_a_grouped_encoder_gives_the_columns_in_their_order() -> None:
    x_BD, weights = rows_and_weights(5, 6, 24)
    (z_BF,) = SlicedEncoder(weights, torch.float64, x_BD.device).slices(x_BD)
    (grouped_BF,) = SlicedEncoder(weights, torch.float64, x_BD.device, groups=8).slices(x_BD)
    torch.testing.assert_close(grouped_BF.unflatten(1, (8, 3)).transpose(1, 2).flatten(1), z_BF)


def test_groups_are_taken_where_they_help_and_the_order_is_one_of_16_or_32_bits() -> None:
    assert group_size(4096, 32, torch.bfloat16) == 8
    assert group_size(57_344, 64, torch.float32) == 8
    assert group_size(4096, 512, torch.bfloat16) == 1
    assert group_size(4097, 32, torch.bfloat16) == 1
    assert group_size(4096, 32, torch.float64) == 1
