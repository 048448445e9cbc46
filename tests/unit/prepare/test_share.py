"""Several workers: the bytes of one, in whatever order they come, and whoever is last deals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kubesae.cli.main import _run
from kubesae.errors import ConfigError
from kubesae.ledger import keys
from kubesae.prepare import prepare, prepare_share
from kubesae.store import open_store
from preparing import rows_experiment, some_units, tokens_of, write_units
from tiny_models import save_model

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = 3001


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give eight units, of which the first six in the seed's order are needed."""
    return write_units(tmp_path_factory.mktemp("inputs"), some_units([6, 5, 7, 4, 6, 5, 6, 7]))


@pytest.fixture(scope="module")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give what one worker leaves."""
    store = open_store(str(tmp_path_factory.mktemp("alone")))
    prepare(rows_experiment(inputs, store.url, TOKENS), store)
    return tokens_of(store)


def segments(store_url: str) -> list[str]:
    return [key for key in open_store(store_url).list("tokens/segments/") if key.endswith(".json")]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_last_of_three_deals_the_bytes_of_one(
    inputs: Path, alone: dict[str, bytes], tmp_path: Path, order: tuple[int, ...]
) -> None:
    store = open_store(str(tmp_path / "data"))
    experiment = rows_experiment(inputs, store.url, TOKENS)
    *first, last = order
    for index in first:
        assert prepare_share(experiment, store, index, 3) is None
        assert not store.exists(keys.TOKENS_MANIFEST)
    made = prepare_share(experiment, store, last, 3)
    assert made is not None
    assert not made.existed
    assert tokens_of(store) == alone
    again = prepare_share(experiment, store, first[0], 3)
    assert again is not None
    assert again.existed


def test_one_that_comes_late_finds_what_it_would_have_done_unneeded(inputs: Path, tmp_path: Path) -> None:
    """Worker 1 of 2 goes on ahead; the prefix that counts ends before its last unit."""
    store = open_store(str(tmp_path / "data"))
    experiment = rows_experiment(inputs, store.url, 900)
    assert prepare_share(experiment, store, 1, 2) is None
    assert 1 <= len(segments(store.url)) < 4
    made = prepare_share(experiment, store, 0, 2)
    assert made is not None
    assert sum(shard.tokens for shard in made.manifest.shards) == 900


def test_more_workers_than_units(inputs: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    experiment = rows_experiment(inputs, store.url, TOKENS)
    results = [prepare_share(experiment, store, index, 11) for index in range(11)]
    assert results[0] is None
    assert results[-1] is not None
    assert tokens_of(store) == alone


def test_a_corpus_that_is_too_small_is_said_by_the_last(inputs: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    experiment = rows_experiment(inputs, store.url, 100_000)
    assert prepare_share(experiment, store, 0, 2) is None
    with pytest.raises(ConfigError, match=r"Corpus rows is too small: .* are needed \(100,032\)"):
        prepare_share(experiment, store, 1, 2)


def test_the_number_of_workers_may_change_on_the_way(inputs: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    experiment = rows_experiment(inputs, store.url, TOKENS)
    assert prepare_share(experiment, store, 3, 4) is None
    assert prepare_share(experiment, store, 1, 2) is None
    prepare(experiment, store)
    assert tokens_of(store) == alone


def test_segments_of_another_order_or_column_are_not_mixed_in(inputs: Path, tmp_path: Path) -> None:
    """The same unit of another seed is another file; of another column, another text."""
    fresh = open_store(str(tmp_path / "fresh"))
    prepare(rows_experiment(inputs, fresh.url, TOKENS, seed=1), fresh)
    store = open_store(str(tmp_path / "data"))
    assert prepare_share(rows_experiment(inputs, store.url, TOKENS), store, 0, 2) is None
    prepare(rows_experiment(inputs, store.url, TOKENS, seed=1), store)
    assert tokens_of(store) == tokens_of(fresh)


def test_the_command_line_says_who_deals(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "model", "llama")
    experiment = rows_experiment(inputs, str(tmp_path / "data"), TOKENS, model=str(tmp_path / "model"))
    file = tmp_path / "experiment.yaml"
    file.write_text(experiment.model_dump_json())
    said = []
    for index in ("0", "1"):
        assert _run(["prepare", str(file), "--index", index, "--of", "2"]) == 0
        said.append(capsys.readouterr().out)
    assert "Worker 0 of 2 has tokenised its units. Others have not: whoever is last deals" in said[0]
    assert "✓ 3,001 tokens prepared in 3 shards" in said[1]
    assert _run(["prepare", str(file), "--index", "2", "--of", "2"]) == 2
    assert "--index 2 is none of --of 2 workers. Give --index from 0 to 1" in capsys.readouterr().err
    assert _run(["prepare", str(file), "--of", "2"]) == 2
    assert "--of 2 needs --index, from 0 to 1" in capsys.readouterr().err
