"""The program over a tiny collected experiment: traces, rankings, resumption, workers, interventions, page, command."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file, save_file

from kubesae.cli.main import _run
from kubesae.errors import ConfigError
from kubesae.features import list_reasoning
from kubesae.ledger import keys
from kubesae.model import resolve_model, whole
from kubesae.reason import Asked, Bench, Edit, intervene, reason
from kubesae.reason import run as reason_run
from kubesae.reason.reader import load_reader
from kubesae.reason.report import Summary
from kubesae.reason.traces import TRACES
from kubesae.store import open_store
from small_sae import D_SAE, write_sae
from tiny_collected import collect_all, tiny_experiment, write_inputs
from tiny_models import LAYERS

SAE = "small"
LAYER = 2


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reason")
    write_inputs(folder, max_position_embeddings=1024)
    experiment = tiny_experiment(folder, model_dtype="float32")
    collect_all(experiment)
    store = open_store(experiment.data)
    write_sae(store, layer=LAYER, d_model=32)
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
    assert _run(["interpret", str(file)]) == 0
    return experiment


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "Few problems.jsonl"
    lines = [
        {
            "question": f"A red bird has {i} stones. It gets {i + 1}. How many?",
            "answer": f"Light {i}.\n#### {i + i + 1}",
        }
        for i in range(11)
    ]
    lines[3]["id"] = "<script>alert(1)</script>"
    lines[4]["question"] = "<b>blue</b> </details><img src=x onerror=alert(1)>. How many? What?"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def asked_of(problems, name="few", **changes):
    settings = {"batch": 3, "most": 12, "tested": 3, "texts": 5, "text_tokens": 12, "paraphrased": 3}
    return Asked(problems=problems, name=name, **settings | changes)


def bench_of(experiment):
    store = open_store(experiment.data)
    return Bench.open(experiment, store, store, None)


@pytest.fixture(scope="module")
def done(experiment, problems):
    bench = bench_of(experiment)
    return bench, reason(bench, asked_of(problems))


def files(store, name):
    return {key.split(f"/{name}/")[1]: store.read(key) for key in store.list(keys.reasoning(SAE, name, ""))}


def table_of(store, name, file="traces.parquet"):
    return pq.read_table(io.BytesIO(store.read(keys.reasoning(SAE, name, file))))


def test_traces_hold_what_was_generated_and_its_codes(done, experiment):
    bench, summary = done
    table = table_of(bench.output, "few")
    assert table.schema.equals(TRACES)
    rows = table.to_pylist()
    assert [row["problem"] for row in rows[:4]] == ["1", "2", "3", "<script>alert(1)</script>"]
    assert summary.problems == len(rows) == summary.scored == 11
    assert summary.correct == sum(row["correct"] for row in rows)
    assert summary.tokens == sum(len(row["tokens"]) for row in rows)
    assert {row["half"] for row in rows} == {0, 1}
    info = json.loads(bench.output.read(keys.reasoning(SAE, "few", keys.TRACED)))
    assert [file["first_row"] for file in info["codes"]] == [rows[i]["first_row"] for i in (0, 3, 6, 9)]
    traces = reason_run.read_traces(bench.output, summary.source, "few")
    dense = np.zeros((summary.tokens, D_SAE), np.float32)
    for feature in range(D_SAE):
        row_N, value_N = traces.cache(bench.output).of(feature)
        dense[row_N, feature] = value_N
    reader = load_reader(experiment, bench.source, LAYER, bench.sae, bench.manifest.tokenizer.special)
    for row in rows:
        (found,) = reader.read([np.array(row["prompt"] + row["tokens"], np.uint32)])
        mine = np.zeros((len(row["prompt"] + row["tokens"]), D_SAE), np.float32)
        mine[found.token_N, found.feature_N] = found.value_N
        mine = mine[len(row["prompt"]) :]
        mine[np.array(row["flags"]) != 0] = 0
        own = dense[row["first_row"] : row["first_row"] + len(row["tokens"])]
        np.testing.assert_allclose(own, mine, rtol=1e-3, atol=1e-3)


def test_rankings_have_their_tests_beside_them(done):
    bench, summary = done
    first, score, correct = summary.rankings
    assert first.texts is not None
    assert first.top
    assert all(one.injection != "not tested" for one in first.top)
    assert all(one.survived == (not one.refuted_by) for one in first.top)
    assert "no word of reasoning" in score.missing
    assert "too few texts" in correct.missing
    table = table_of(bench.output, "few", "contrasts.parquet")
    ranked = [row for row in table.to_pylist() if row["rank"] is not None]
    assert {row["feature"] for row in ranked} == {one.feature for one in first.top}
    assert all(row["injection_p"] is not None for row in ranked)
    assert len(table) > len(ranked)


def test_the_page_is_safe_and_links_features(done):
    bench, summary = done
    html = bench.output.read(keys.reasoning(SAE, "few", "index.html")).decode()
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>blue" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    feature = summary.rankings[0].top[0].feature
    assert f'href="../../../interpret/{SAE}/index.html#/feature/{feature}"' in html
    assert html.count('<svg class="strip"') == 11
    assert 'id="only-wrong"' in html
    assert html.count("<details") == html.count("</details>") == 11


def test_the_interpretation_s_page_lists_it(done):
    bench, summary = done
    listed = json.loads(bench.output.read(f"interpret/{SAE}/page/reasoning.json"))
    assert listed == list_reasoning(bench.output, SAE, bench.named.sha256)
    (one,) = [entry for entry in listed if entry["name"] == "few"]
    assert one["path"] == f"reason/{SAE}/few/index.html"
    survived = {one.feature for ranking in summary.rankings for one in ranking.top if one.survived}
    assert (one["problems"], one["correct"], one["survived"]) == (11, summary.correct, len(survived))
    assert list_reasoning(bench.output, SAE, "of other weights") == []
    assert list_reasoning(bench.output, SAE, bench.named.sha256) == listed


class Killed(BaseException):
    """As a signal ends a program."""


def test_killed_and_started_again_it_is_one_run_s_bytes(done, experiment, problems):
    bench, _ = done
    reads = []

    def stop_at(count):
        def progress(solved, _total):
            reads.append(solved)
            if solved >= count:
                raise Killed

        return progress

    for count in (3, 6):
        with pytest.raises(Killed):
            reason(bench_of(experiment), asked_of(problems, "again"), progress=stop_at(count))
    assert reads == [3, 3, 6]  # the second begins after what the first one left
    reason(bench_of(experiment), asked_of(problems, "again"))
    assert same_but_name(files(bench.output, "again")) == same_but_name(files(bench.output, "few"))


def same_but_name(found):
    return {key: data.replace(b"again", b"few").replace(b"shared", b"few") for key, data in found.items()}


def test_two_workers_are_one(done, experiment, problems):
    bench, _ = done
    assert reason(bench_of(experiment), asked_of(problems, "shared"), (1, 2)) is None
    found = reason(bench_of(experiment), asked_of(problems, "shared"), (0, 2))
    assert isinstance(found, Summary)
    mine, other = (json.loads(files(bench.output, name)["traces.json"]) for name in ("shared", "few"))
    assert mine["traces_sha256"] == other["traces_sha256"]
    assert [file["sha256"] for file in mine["codes"]] == [file["sha256"] for file in other["codes"]]


def test_what_is_there_is_not_made_again(done, experiment, problems, monkeypatch):
    bench, summary = done
    monkeypatch.setattr(reason_run, "load_language_model", None)
    before = files(bench.output, "few")
    assert reason(bench_of(experiment), asked_of(problems)) == summary
    assert files(bench.output, "few") == before


def test_results_of_another_format_are_made_anew(done, experiment, problems):
    bench, summary = done
    key = keys.reasoning(SAE, "few", keys.REASONED)
    before = bench.output.read(key)
    older = json.loads(before)
    bench.output.put(key, json.dumps(older | {"format": 1, "source": older["source"] | {"format": 1}}).encode())
    assert reason(bench_of(experiment), asked_of(problems)) == summary
    assert bench.output.read(key) == before


def test_without_the_whole_model_solutions_are_read(experiment, problems, monkeypatch):
    monkeypatch.setattr(whole, "_memory", lambda: 1000)
    bench = bench_of(experiment)
    summary = reason(bench, asked_of(problems, "given"))
    assert "takes 0.0 GB in float32; here are 0.0 GB" in summary.not_generated
    assert "need all weight files of model, head included, and 0.0 GB" in summary.not_generated
    fields = (summary.scored, summary.correct, summary.accuracy, summary.accuracy_interval, summary.ended)
    assert fields == (None,) * 5
    assert summary.rankings[0].top
    assert "no answer was scored" in summary.rankings[2].missing
    assert set(table_of(bench.output, "given")["correct"].to_pylist()) == {None}
    result = intervene(bench, asked_of(problems, "given"), Edit("ablate", 1, 0.0), 1)
    assert result["variants"] == []
    assert "need all weight files" in result["missing"]


def test_a_model_without_head_is_not_run_with_a_random_one(experiment, tmp_path):
    folder = tmp_path / "cut"
    folder.mkdir()
    shutil.copytree(experiment.model, folder, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if name not in {"lm_head.weight", "model.norm.weight"}}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    source = resolve_model(experiment.model_copy(update={"model": str(folder)}))
    with pytest.raises(ConfigError, match=r"lack lm_head.weight.*head were cut off"):
        whole.load_language_model(source, "bfloat16", "")
    assert source.num_layers == LAYERS


def test_without_ordinary_text_the_ranking_says_so(experiment, problems, tmp_path, capsys):
    shutil.copytree(experiment.data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "interpret")
    moved = experiment.model_copy(update={"data": str(tmp_path / "data")})
    summary = reason(bench_of(moved), asked_of(problems, "bare", limit=2))
    assert "Run `kubesae interpret` first" in summary.rankings[0].missing
    assert summary.interpretation_sha256 == ""
    file = tmp_path / "moved.yaml"
    file.write_text(yaml.safe_dump(moved.model_dump(mode="json")))
    code, out, _ = command(capsys, file, "--text", "red bird")
    assert code == 0
    assert out.splitlines()[-1] == f"No labels: `kubesae interpret {file}` makes them."


def test_an_intervention_has_its_controls_and_is_kept(done, problems, experiment):
    bench, _ = done
    feature = 2
    result = intervene(bench, asked_of(problems), Edit("add", feature, 4.0), 1)
    names = [one["name"] for one in result["variants"]]
    assert names[:4] == ["unchanged", "edited", "turned round", "random direction 1"]
    assert names[4].startswith("feature ")
    assert result["complete"]
    unchanged, edited = result["variants"][:2]
    assert (unchanged["change"], unchanged["scored"]) == (0.0, 11)
    assert edited["change"] != 0
    low, high = edited["change_interval"]
    assert low <= edited["change"] <= high
    before = files(bench.output, "few")["interventions.json"]
    again = intervene(bench_of(experiment), asked_of(problems), Edit("add", feature, 4.0), 1)
    assert json.loads(json.dumps(result)) == again
    intervene(bench, asked_of(problems), Edit("ablate", feature, 0.0), 1)
    stored = json.loads(files(bench.output, "few")["interventions.json"])["interventions"]
    assert sorted(one["edit"]["kind"] for one in stored) == ["ablate", "add"]
    assert stored != json.loads(before)["interventions"]


def test_an_intervention_is_on_the_weights_that_there_are(problems, experiment):
    bench = bench_of(experiment)
    asked = asked_of(problems, "weights")
    before = intervene(bench, asked, Edit("add", 2, 4.0), 1)
    try:
        write_sae(bench.output, layer=LAYER, d_model=32, seed=1)
        after = intervene(bench_of(experiment), asked, Edit("add", 2, 4.0), 1)
    finally:
        write_sae(bench.output, layer=LAYER, d_model=32)
    assert after["variants"][1]["change"] != before["variants"][1]["change"]


def test_what_the_model_has_no_positions_for_is_said_before_anything_is_solved(problems, experiment):
    bench = bench_of(experiment)
    with pytest.raises(ConfigError, match=r"the model takes at most .* Lower --max-tokens, which is 100,000"):
        reason(bench, asked_of(problems, "long", most=100_000))
    assert not bench.output.list(keys.reasoning(SAE, "long", ""))


def command(capsys, *arguments):
    capsys.readouterr()
    code = _run(["reason", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def file(experiment, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
    return path


@pytest.mark.parametrize("engine", ["resident", "streamed"])
def test_a_text_is_shown_token_by_token(file, capsys, engine):
    code, out, _ = command(capsys, file, "--text", "red bird", "--top", 2, "--engine", engine, "--json")
    assert code == 0
    tokens = json.loads(out)["tokens"]
    assert "".join(token["text"] for token in tokens[1:]).replace("Ġ", " ").replace(" ", "") == "redbird"
    assert "first position" in tokens[0]["flags"]
    assert all(len(token["features"]) <= 2 for token in tokens)
    values = [[one["activation"] for one in token["features"]] for token in tokens]
    assert all(sorted(one, reverse=True) == one for one in values)
    code, out, _ = command(capsys, file, "--text", "red bird", "--engine", engine)
    assert code == 0
    assert "left out of statistics: first position" in out
    assert "No labels" not in out
    labels = [one["label"] for token in tokens for one in token["features"]]
    assert labels
    assert all(isinstance(label, str) for label in labels)


def test_an_intervention_on_a_text_is_shown(file, capsys):
    code, out, _ = command(
        capsys, file, "--text", "red bird cloud", "--intervene", "clamp", "--feature", 3, "--value", 9
    )
    assert code == 0
    assert "Intervention: clamp feature 3 9" in out
    assert "turned round" in out


def test_the_command_says_accuracy_ranking_and_verdict(done, file, problems, capsys):
    arguments = ("--name", "few", "--batch", 3, "--max-tokens", 12, "--tested", 3, "--texts", 5, "--paraphrased", 3)
    code, out, err = command(capsys, file, "--problems", problems, *arguments)
    assert code == 0, err
    assert "Accuracy: " in out
    assert "Reasoning against ordinary text, by Cohen's d:" in out
    assert "survived" in out
    assert out.splitlines()[-1].endswith(f"reason/{SAE}/few/index.html")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Give either --text, or --problems"),
        (("--text", "a", "--feature", 3), "give --intervene too"),
        (("--text", "a", "--intervene", "ablate"), "needs --feature"),
        (("--text", "a", "--intervene", "clamp", "--feature", 3), "--value says to what"),
        (("--text", "a", "--intervene", "ablate", "--feature", 999), "has no feature 999"),
        (("--problems", "none.jsonl", "--intervene", "ablate", "--feature", 999), "has no feature 999"),
        (("--text", "a", "--intervene", "add", "--feature", 3, "--value", "nan"), "give a finite number"),
        (("--text", "a", "--seed", -1), "is not in the range"),
        (("--problems", "x.jsonl", "--name", "../x"), "is no name"),
        (("--problems", "none.jsonl"), "cannot be read"),
    ],
)
def test_a_user_s_mistake_is_said(file, capsys, arguments, said):
    code, _, err = command(capsys, file, *arguments)
    assert code == 2
    assert said in err
