"""The small experiment, interpreted once for all tests that only read it."""

import pytest

from exported import interpreted
from kubesae.evaluate import evaluate
from small_experiment import small_experiment


@pytest.fixture(scope="session")
def small_store(tmp_path_factory):
    store = interpreted(tmp_path_factory.mktemp("export") / "data")
    evaluate(small_experiment(store.url), store, store, None, 0)
    return store
