"""The sparse-code cache against dense activations."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from kubesae.errors import DamagedError
from kubesae.experiment import sha256_hex
from kubesae.features import CodeCache, Codes, CodesBuilder, CodesFile
from kubesae.features.codes import codes_from_bytes
from kubesae.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from kubesae.store import Store

Dense = tuple["npt.NDArray[np.float32]", "npt.NDArray[np.bool_]"]
VALUES = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.5]) | st.floats(0, 2.0**100, width=32)
FIRST = 1000


@st.composite
def dense(draw: st.DrawFn) -> Dense:
    """Activations [rows, features], 0 on flagged rows, and which rows are kept."""
    rows, features = draw(st.integers(1, 20)), draw(st.integers(1, 5))
    values = draw(st.lists(VALUES, min_size=rows * features, max_size=rows * features))
    kept_R = np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    f_RF = np.array(values, np.float32).reshape(rows, features)
    f_RF[~kept_R] = 0
    return f_RF, kept_R


def built(f_RF: npt.NDArray[np.float32], kept_R: npt.NDArray[np.bool_], step: int = 7) -> Codes:
    builder = CodesBuilder(FIRST, *f_RF.shape)
    for start in range(0, len(f_RF), step):
        row, feature = np.nonzero(f_RF[start : start + step] >= 0)
        value = f_RF[start : start + step][row, feature]
        kept = FIRST + start + np.flatnonzero(kept_R[start : start + step])
        builder.add(kept, FIRST + start + row, feature, value)
    return builder.finish()


def write(store: Store, key: str, codes: Codes) -> CodesFile:
    data = codes.to_bytes()
    store.put(key, data)
    return CodesFile(
        key=key, first_row=codes.first_row, rows=len(codes.kept_R), entries=len(codes.row_N), sha256=sha256_hex(data)
    )


@given(dense(), st.integers(1, 9))
def test_codes_are_the_activations_by_feature_and_row(activations: Dense, step: int) -> None:
    f_RF, kept_R = activations
    codes = built(f_RF, kept_R, step)
    assert codes.kept_R.tolist() == kept_R.tolist()
    for feature in range(f_RF.shape[1]):
        rows, values = codes.of(feature)
        active = np.flatnonzero(f_RF[:, feature])
        assert rows.tolist() == (FIRST + active).tolist()
        assert values.tolist() == f_RF[active, feature].tolist()
    assert codes.features_N().tolist() == np.nonzero(f_RF.T)[0].tolist()


@given(dense(), st.data())
def test_windows_are_stretches_of_a_column(activations: Dense, data: st.DataObject) -> None:
    f_RF, kept_R = activations
    codes = built(f_RF, kept_R)
    edge, feature = st.integers(0, len(f_RF)), st.integers(0, f_RF.shape[1] - 1)
    windows = data.draw(st.lists(st.tuples(feature, st.tuples(edge, edge).map(sorted)), max_size=6))
    arrays = (
        np.array([window[0] for window in windows], np.int64),
        *np.array([w[1] for w in windows]).reshape(-1, 2).T,
    )
    found = codes.windows(arrays[0], *(FIRST + array.astype(np.int64) for array in arrays[1:]))
    assert found.tolist() == [value for one, (begin, end) in windows for value in f_RF[begin:end, one].tolist()]


@settings(max_examples=20)
@given(dense())
def test_a_file_is_read_as_it_was_written_whole_and_by_feature(activations: Dense) -> None:
    f_RF, kept_R = activations
    codes = built(f_RF, kept_R)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        cache = CodeCache(store, [write(store, "one", codes)], f_RF.shape[1])
        (read,) = cache.files()
        assert read.to_bytes() == codes.to_bytes()
        for feature in range(f_RF.shape[1]):
            assert [part.tolist() for part in cache.of(feature)] == [part.tolist() for part in codes.of(feature)]


def test_more_features_than_16_bits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubesae.features.codes._LOT", 500)
    generator, features = np.random.default_rng(0), 200_000
    builder, expected = CodesBuilder(0, 300, features), []
    for row in range(300):
        feature = np.sort(generator.choice(features, 20, replace=False))
        value = generator.random(20, np.float32) + 1
        builder.add(np.array([row]), np.full(20, row), feature, value)
        expected += zip(feature.tolist(), [row] * 20, value.tolist(), strict=True)
    codes = builder.finish()
    found = zip(codes.features_N().tolist(), codes.row_N.tolist(), codes.value_N.tolist(), strict=True)
    assert list(found) == sorted(expected)


def test_the_same_rows_give_the_same_bytes_however_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    f_RF = np.maximum(np.random.default_rng(1).normal(size=(200, 40)).astype(np.float32), 0)
    kept_R = np.ones(200, np.bool_)
    at_once = built(f_RF, kept_R, 200).to_bytes()
    monkeypatch.setattr("kubesae.features.codes._LOT", 100)
    assert built(f_RF, kept_R, 3).to_bytes() == at_once


@pytest.mark.parametrize("change", ["a byte", "other tensors", "other features", "fewer entries"])
def test_what_is_not_the_file_that_is_meant_is_damage(tmp_path: Path, change: str) -> None:
    store = open_store(str(tmp_path))
    f_RF = np.ones((4, 3), np.float32)
    file = write(store, "codes", built(f_RF, np.ones(4, np.bool_)))
    data, features = store.read("codes"), 3
    if change == "a byte":
        data = data[:-1] + b"\1"
    elif change == "other tensors":
        data = save({"rows": load(data)["rows"]})
        file = file.model_copy(update={"sha256": sha256_hex(data)})
    elif change == "other features":
        features = 4
    else:
        file = file.model_copy(update={"entries": 11})
    with pytest.raises(DamagedError, match=r"there .*interpret again"):
        codes_from_bytes(data, file, features, "there")
