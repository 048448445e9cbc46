"""A preset is only a way of writing: what it stands for, written out, is the same experiment, the same data."""

from __future__ import annotations

from typing import Any

import pytest

from kubesae.corpus import Request
from kubesae.errors import ConfigError
from kubesae.experiment import PRESETS, Corpus, Experiment, canonical_json, validate
from kubesae.ledger import read_run, write_run
from kubesae.store import open_store


def experiment(*corpora: dict[str, Any], data: str = "d") -> Experiment:
    return validate(Experiment, {"data": data, "model": "a/m", "layers": [0], "corpora": list(corpora)}, "it")


@pytest.mark.parametrize("preset", PRESETS)
def test_naming_it_or_writing_it_out_is_the_same(preset: str) -> None:
    named, written = experiment({"preset": preset}), experiment({"name": preset, **PRESETS[preset]})  # type: ignore[index]
    assert named == written
    assert canonical_json(Request.of(named).model_dump(mode="json")) == canonical_json(
        Request.of(written).model_dump(mode="json")
    )


def test_what_is_written_beside_it_wins() -> None:
    mirror = {"preset": "wikipedia", "name": "wiki", "source": "/data/wikipedia", "weight": 2, "dedup": True}
    corpus = experiment(mirror).corpora[0]
    assert corpus == Corpus(name="wiki", source="/data/wikipedia", config="20231101.en", weight=2, dedup=True)
    assert experiment({"preset": "reasoning", "messages": None}).corpora[0].messages is None


def test_one_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"corpora\.0: there is no preset 'wiki': choose one of wikipedia, books, code"
    ):
        experiment({"preset": "wiki"})
    with pytest.raises(ConfigError, match=r"corpora\.0\.nme: there is no such field. Did you mean name\?"):
        experiment({"preset": "wikipedia", "nme": "a"})


def test_two_of_the_same_need_names() -> None:
    with pytest.raises(ConfigError, match="two corpora have the same name"):
        experiment({"preset": "code"}, {"preset": "code"})
    assert len(experiment({"preset": "code"}, {"preset": "code", "name": "more"}).corpora) == 2


def test_a_recorded_run_says_what_it_stood_for(tmp_path: Any) -> None:
    store = open_store(str(tmp_path))
    started = experiment({"preset": "reasoning"}, data=store.url)
    write_run(store, started)
    found = read_run(store)
    assert found is not None
    assert found.corpora == started.corpora


def test_fields_that_came_later_are_not_stored_where_they_have_their_default() -> None:
    assert Corpus(name="a", source="b/c").model_dump(mode="json") == {
        "name": "a", "source": "b/c", "format": "auto", "config": None, "split": "train", "revision": None,
        "field": "text", "weight": 1.0, "pool": 1.0,
    }  # fmt: skip
