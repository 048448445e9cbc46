"""Nearest decoder directions against all cosines in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kubesae.features.answers import NEIGHBOURS
from kubesae.interpret.answers.neighbours import neighbours_table


def brute(W_FD: torch.Tensor, most: int) -> tuple[list[list[int]], list[list[float]]]:
    W = W_FD.double().numpy()
    norm = np.linalg.norm(W, axis=1, keepdims=True)
    W = W / np.where(norm > 0, norm, 1)
    others, cosines = [], []
    for feature, row in enumerate((W @ W.T).astype(np.float32)):
        order = [i for i in np.lexsort((np.arange(len(W)), -row)).tolist() if i != feature][:most]
        others.append(order)
        cosines.append(row[order].tolist())
    return others, cosines


@pytest.mark.parametrize(("features", "most", "tile"), [(90, 20, 1 << 24), (90, 20, 200), (90, 5, 1), (7, 20, 30)])
def test_they_are_the_largest_cosines(features: int, most: int, tile: int) -> None:
    W_FD = 3 * torch.randn(features, 6, generator=torch.Generator().manual_seed(0))
    table = neighbours_table(W_FD, most, tile)
    assert table.schema == NEIGHBOURS
    others, cosines = brute(W_FD, most)
    assert table["feature"].to_pylist() == list(range(features))
    assert table["neighbours"].to_pylist() == others
    for found, expected in zip(table["cosines"].to_pylist(), cosines, strict=True):
        assert found == pytest.approx(expected, abs=1e-6)
        assert len(found) == min(most, features - 1)


def test_of_equal_ones_the_lower_number_comes_first() -> None:
    W_FD = torch.eye(4).repeat(12, 1)  # 12 copies of each of four directions
    table = neighbours_table(W_FD, 3)
    assert table["neighbours"][0].as_py() == [4, 8, 12]
    assert table["neighbours"][9].as_py() == [1, 5, 13]
    assert neighbours_table(W_FD, 20)["neighbours"][0].as_py() == [*range(4, 48, 4), 1, 2, 3, 5, 6, 7, 9, 10, 11]


def test_directions_of_no_length_are_near_to_none() -> None:
    W_FD = torch.cat([torch.eye(2), torch.zeros(1, 2)])
    assert neighbours_table(W_FD)["cosines"].to_pylist() == [[0, 0]] * 3


def test_one_feature_alone_has_none() -> None:
    assert neighbours_table(torch.ones(1, 3)).to_pylist() == [{"feature": 0, "neighbours": [], "cosines": []}]
