"""Rows that are shown: tokens and activations one by one, against the table."""

import numpy as np
import pytest

from exported import subject
from kubesae.export.contexts import ShownRows, exact, token_texts
from small_sae import D_SAE


@pytest.mark.parametrize("name", ["examples", "samples"])
def test_a_context_is_the_table_s_row(name, small_store):
    opened = subject(small_store)
    table = getattr(opened.stored, name)
    rows = ShownRows.of(table, D_SAE)
    texts = token_texts(opened.vocabulary, range(opened.manifest.tokenizer.size))
    assert len(table) == rows.offset_F[-1] > 50
    for number, row in enumerate(table.to_pylist()):
        shown = rows.context(number, texts)
        ids = [*row["before"], row["token"], *row["after"]]
        assert shown.tokens == [texts[token] for token in ids]
        assert np.float32(shown.values).tolist() == row["activations"]
        assert shown.values[shown.at] == shown.activation
        assert (shown.row, shown.at, np.float32(shown.activation)) == (
            row["row"],
            len(row["before"]),
            row["activation"],
        )
        assert number in rows.rows_of(row["feature"])


def test_numbers_are_as_short_as_float32_needs():
    values = np.float32([0, 0.1, 1 / 3, 1e-30, 12345.678])
    assert exact(values) == [0.0, 0.1, 0.33333334, 1e-30, 12345.678]
    assert (np.float32(exact(values)) == values).all()
