"""When a feature counts as dead."""

from __future__ import annotations

import pytest

from kubesae.experiment import Sae as Settings
from kubesae.train.start import rows_until_dead


@pytest.mark.parametrize(
    ("given", "epochs", "epoch_rows", "expected"),
    [
        (None, 4, 500_000, 100_000),
        (None, 40, 500_000, 500_000),
        (None, 3, 1_000_000_000, 10_000_000),
        (None, 1, 3, 1),
        (200_000, 1, 500_000, 200_000),
        (200_000, 9, 50_000, 50_000),
    ],
)
def test_a_feature_is_dead_after_a_twentieth_of_the_training(
    given: int | None, epochs: int, epoch_rows: int, expected: int
) -> None:
    assert rows_until_dead(Settings(dead_after=given, epochs=epochs), epoch_rows) == expected
