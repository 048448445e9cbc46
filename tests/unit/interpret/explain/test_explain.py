"""Explaining features of the small synthetic experiment, against a server on loopback."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from chat_server import ChatServer, Fault, TinyModel
from kubesae.cli.main import group
from kubesae.errors import ConfigError, KubesaeError
from kubesae.experiment import Interpret
from kubesae.interpret import interpret
from kubesae.interpret.explain import Endpoint, choose, explain, open_interpretation, prompts
from kubesae.interpret.explain.examples import SHOWN, _contexts, _drawn, examples_of
from kubesae.interpret.explain.questions import BATCH, questions_of
from kubesae.interpret.explain.run import EXPLANATIONS, FILE
from kubesae.ledger import Plan, keys, record_list
from kubesae.store import open_store
from small_experiment import write_small
from small_sae import D_SAE, DEAD, write_sae

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Interpret(top_k=20, samples=20, context_tokens=2)
KEY = f"interpret/small/{FILE}"


@pytest.fixture
def found(tmp_path: Path):
    store = open_store(str(tmp_path / "data"))
    write_small(store)
    write_sae(store)
    return interpret(store, store, None, SETTINGS)


@pytest.fixture
def rare(found) -> int:
    """The live feature that is active on the fewest rows."""
    count_F = found.stored.statistics["count"].to_numpy()
    return int(np.argmin(np.where(count_F > 0, count_F, count_F.max())))


def truths(found, features, most: int) -> dict[tuple[str, str], list[int]]:
    """Right answers by what the user says: the explanation is always the same."""
    return {
        (one.kind, one.messages("it")[1]["content"]): list(map(int, one.truth))
        for feature in features
        for one in questions_of(feature, examples_of(found, feature, most), found.vocabulary)
    }


def answering(found, features, most: int, judge):
    """Answer as `judge(kind, truth)` says; explain anything as `it`."""
    known = truths(found, features, most)

    def answer(messages, _most_tokens: int) -> str:
        said = messages[1]["content"]
        if not said.startswith("Explanation: "):
            return "Explanation: it"
        kind = "fuzzing" if "marked <<" in messages[0]["content"] else "detection"
        return str(judge(kind, known[kind, said]))

    return answer


def test_examples_to_judge_are_balanced_and_not_those_that_were_shown(found, rare: int) -> None:
    for feature in (rare, int(np.argmax(found.stored.statistics["count"].to_numpy()))):
        examples = examples_of(found, feature, 100)
        active = sum(example.active for example in examples.judged)
        assert len(examples.judged) == 2 * active
        assert 0 < len(examples.shown) <= SHOWN
        values = [max(example.activations) for example in examples.shown]
        assert all(example.active for example in examples.shown)
        assert examples_of(found, feature, 100) == examples
        assert len(examples_of(found, feature, 3).judged) == 6
        assert values[0] == pytest.approx(found.stored.statistics["max"][feature].as_py())
        judged = {example.ids + example.activations for example in examples.judged if example.active}
        assert not judged & {example.ids + example.activations for example in examples.shown}
        mixed = [example.active for example in examples.judged]
        assert mixed != sorted(mixed)


def test_rows_to_judge_come_from_all_deciles(found) -> None:
    feature = int(np.argmax(found.stored.statistics["count"].to_numpy()))
    judged = examples_of(found, feature, 30).judged
    assert sum(example.active for example in judged) > 10
    least = min(max(example.activations) for example in judged if example.active)
    _, every = found.stored.cache(found.output).of(feature)
    assert least < np.quantile(every, 0.5)


def test_a_fuzzed_text_without_the_feature_has_as_many_marks(found, rare: int) -> None:
    questions = [
        one for one in questions_of(rare, examples_of(found, rare, 100), found.vocabulary) if one.kind == "fuzzing"
    ]
    assert all(0 < len(one.texts) <= BATCH for one in questions)
    for one in questions:
        assert all("<<" in text for text in one.texts)
    plain = [
        one for one in questions_of(rare, examples_of(found, rare, 100), found.vocabulary) if one.kind == "detection"
    ]
    assert not any("<<" in text for one in plain for text in one.texts)


@pytest.mark.parametrize(
    ("judge", "detection", "fuzzing"),
    [
        (lambda _, truth: truth, 1.0, 1.0),
        (lambda kind, truth: truth if kind == "fuzzing" else [1 - one for one in truth], 0.0, 1.0),
        (lambda _, truth: [1] * len(truth), 0.5, 0.5),
        (lambda kind, truth: "I do not know" if kind == "fuzzing" else truth, 1.0, None),
    ],
)
def test_scores_are_those_of_the_answers(found, rare: int, judge, detection, fuzzing) -> None:
    with ChatServer(answering(found, [rare], 10, judge)) as server:
        row = explain(found, [rare], Endpoint(server.url, "oracle"), most=10).to_pylist()[0]
    assert (row["feature"], row["explanation"], row["model"]) == (rare, "it", "oracle")
    assert (row["detection"], row["fuzzing"]) == (detection, fuzzing)
    judged = len(examples_of(found, rare, 10).judged)
    for kind, value in (("detection", detection), ("fuzzing", fuzzing)):
        counts = [row[f"{kind}_{name}"] for name in ("positives", "negatives", "unanswered")]
        assert counts == ([0, 0, judged] if value is None else [judged // 2, judged // 2, 0])


def test_a_real_model_s_answers_are_stored_whatever_they_are(found, rare: int, tmp_path: Path) -> None:
    with ChatServer(TinyModel(tmp_path / "model")) as server:
        table = explain(found, [rare], Endpoint(server.url, "tiny"), most=5)
    assert table.schema == EXPLANATIONS
    row = table.to_pylist()[0]
    assert row["explanation"]
    for kind in ("detection", "fuzzing"):
        total = sum(row[f"{kind}_{name}"] for name in ("positives", "negatives", "unanswered"))
        assert total == len(examples_of(found, rare, 5).judged)
    assert pq.read_table(io.BytesIO(found.output.read(KEY))).equals(table)


def test_it_goes_on_with_the_next_feature(found) -> None:
    features = choose(found, (), 3)
    with ChatServer(answering(found, features, 4, lambda _, truth: truth)) as server:
        endpoint = Endpoint(server.url, "oracle", pause=lambda _: server.next(Fault(500)))
        explain(found, features[:1], endpoint, most=4)
        asked = len(server.seen)
        server.next(Fault(500))
        with pytest.raises(KubesaeError, match="failed 5 times"):
            explain(found, features, endpoint, most=4, parallel=1)
        server.faults.clear()
        said: list[str] = []
        table = explain(found, features, endpoint, most=4, say=said.append)
        first = [body for _, body in server.seen[asked:] if body["messages"] == server.seen[0][1]["messages"]]
        assert not first, "the first feature is asked about once"
        assert [int(re.findall(r"\d+", line)[0]) for line in said] == features
        assert sorted(features) == table["feature"].to_pylist()
        asked = len(server.seen)
        again = explain(found, features, endpoint, most=4)
        assert len(server.seen) == asked
        assert again.equals(table)
        explain(found, features[:1], Endpoint(server.url, "other"), most=4)
        assert len(server.seen) > asked


def test_an_interpretation_that_changed_is_explained_anew(found) -> None:
    (feature,) = choose(found, (), 1)
    with ChatServer(lambda *_: "Explanation: it") as server:
        endpoint = Endpoint(server.url, "oracle")
        before = explain(found, [feature], endpoint, most=2)
        other = interpret(found.data, found.output, None, SETTINGS.model_copy(update={"top_k": 21}))
        asked = len(server.seen)
        after = explain(other, [feature], endpoint, most=2)
        assert len(server.seen) > asked
    assert before["made_of"] != after["made_of"]


def test_explanations_with_other_examples_stay(found) -> None:
    features = choose(found, (), 3)
    with ChatServer(lambda *_: "Explanation: it") as server:
        endpoint = Endpoint(server.url, "oracle")
        before = explain(found, features, endpoint, most=2).to_pylist()
        after = explain(found, features[:1], endpoint, most=3).to_pylist()
    assert [row["feature"] for row in after] == sorted(features)
    assert [row for row in after if row["feature"] != features[0]] == [
        row for row in before if row["feature"] != features[0]
    ]


def test_of_a_collection_that_goes_on_only_rows_that_are_there_are_judged(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    identity = write_small(store)
    write_sae(store)
    plan = Plan.of(identity)
    later = [key for key in record_list(store) if not key.endswith("part-000000.json")]
    for key in [*later, keys.INDEX]:
        store.delete(key)
    found = interpret(store, store, None, SETTINGS)
    assert (found.stored.info.source.rows, found.identity.tokens) == (384, 1003)
    feature = int(np.argmax(found.stored.statistics["count"].to_numpy()))
    row_N, value_N = found.stored.cache(store).of(feature)
    other = row_N >= plan.global_row(1, 0)
    assert other.any()
    shown = _contexts(found, row_N[other], row_N, value_N)
    assert all(example.active for example in shown)
    drawn = _drawn(found.stored.info.codes, 100, feature)
    committed = np.concatenate([np.arange(192), plan.global_row(1, 0) + np.arange(192)])
    assert np.isin(drawn, committed).all()
    assert (drawn >= 192).any()
    assert sum(example.active for example in examples_of(found, feature, 20).judged) > 0


def test_an_interpretation_over_other_data_is_said(found, tmp_path: Path) -> None:
    other = open_store(str(tmp_path / "other"))
    write_small(other, seed=8)
    with pytest.raises(ConfigError, match="was interpreted over other data"):
        open_interpretation(other, found.output, None)


def test_a_model_that_says_nothing_is_said_at_the_end(found) -> None:
    features = choose(found, (), 2)
    with (
        ChatServer(lambda *_: "Explanation: ") as server,
        pytest.raises(KubesaeError, match=f"no explanation of 2 of 2 features, {features[0]} the first"),
    ):
        explain(found, features, Endpoint(server.url, "silent"), most=2)
    assert not found.output.exists(KEY)


def test_one_active_row_is_enough_to_explain(found, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, best = found.stored.cache(found.output), found.examples(3, 1)
    only = best["row"].to_numpy(), best["activation"].to_numpy()
    monkeypatch.setattr(type(cache), "of", lambda *_: only)
    with ChatServer(lambda *_: "Explanation: it") as server:
        row = explain(found, [3], Endpoint(server.url, "oracle"), most=10).to_pylist()[0]
    assert (row["detection"], row["detection_positives"], row["fuzzing_unanswered"]) == (None, 0, 0)


def test_a_feature_that_is_active_everywhere_has_nothing_to_be_told_from(found, monkeypatch) -> None:
    cache = found.stored.cache(found.output)
    rows = found.stored.info.source.rows
    monkeypatch.setattr(type(cache), "of", lambda *_: (np.arange(rows), np.ones(rows, np.float32)))
    assert examples_of(found, 3, 10).judged == ()
    assert len(examples_of(found, 3, 10).shown) > 0


def test_which_features(found) -> None:
    assert choose(found, [7, 3, 7], 0) == [7, 3]
    chosen = choose(found, (), 1000)
    assert sorted(chosen) == [i for i in range(D_SAE) if i != DEAD]
    assert choose(found, (), 4) == chosen[:4] != sorted(chosen)[:4]
    with pytest.raises(ConfigError, match=f"no feature {D_SAE}: its features are 0 to 23"):
        choose(found, [D_SAE], 0)
    with pytest.raises(ConfigError, match=f"Feature {DEAD} is active on no row"):
        choose(found, [DEAD], 0)


def test_without_an_interpretation(found) -> None:
    found.output.delete("interpret/small/interpret.json")
    with pytest.raises(ConfigError, match=r"SAE small at .* is not interpreted yet\. Run `kubesae interpret` first"):
        open_interpretation(found.data, found.output, None)


def run(*arguments: object) -> None:
    group.main(["explain", *map(str, arguments)], standalone_mode=False)


def test_the_command(found, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    with ChatServer(answering(found, [3, 4], 6, lambda _, truth: truth)) as server:
        what = ("--data", found.data.url, "--features", "3,4", "--examples", 6)
        run(*what, "--endpoint", server.url, "--model", "oracle")
        assert {headers["Authorization"] for headers, _ in server.seen} == {"Bearer sk-of-the-test"}
    shown = capsys.readouterr().out
    assert shown.splitlines() == [f"Feature {i}: it (detection 1.00, fuzzing 1.00)" for i in (3, 4)]
    assert b"sk-of-the-test" not in found.output.read(KEY)


def test_prompts_are_written_instead(found, tmp_path: Path, capsys) -> None:
    run("--data", found.data.url, "--count", 2, "--examples", 6, "--export-prompts", tmp_path / "prompts.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert lines == [json.loads(line) for line in prompts(found, choose(found, (), 2), 6)]
    assert capsys.readouterr().out.startswith(f"Wrote {len(lines)} questions about 2 features to ")
    assert lines[0]["kind"] == "explanation"
    for line in lines:
        assert (
            ("truth" in line) == ("{explanation}" in line["messages"][1]["content"]) == (line["kind"] != "explanation")
        )
    assert not found.output.exists(KEY)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Which features"),
        (("--features", "1", "--count", 2), "Which features"),
        (("--features", "1"), "Which language model"),
        (("--features", "one", "--export-prompts", "x"), "--features 'one' is no list of numbers"),
    ],
)
def test_mistakes(found, arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run("--data", found.data.url, *arguments)
