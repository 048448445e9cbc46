"""The folder for Neuronpedia's import, by the columns that it has."""

import json
import re

import hypothesis
import hypothesis.strategies as st

from exported import json_lines, subject, written
from kubesae.export.neuronpedia import lines

WORD = re.compile(r"\w+")
# SAEDashboard at db4839a, sae_dashboard/neuronpedia/neuronpedia_export.py
FEATURE = WORD.findall(
    """modelId layer index creatorId createdAt maxActApprox hasVector vector vectorLabel vectorDefaultSteerStrength
hookName topkCosSimIndices topkCosSimValues neuron_alignment_indices neuron_alignment_values neuron_alignment_l1
correlated_neurons_indices correlated_neurons_pearson correlated_neurons_l1 correlated_features_indices
correlated_features_pearson correlated_features_l1 neg_str neg_values pos_str pos_values frac_nonzero
freq_hist_data_bar_heights freq_hist_data_bar_values logits_hist_data_bar_heights logits_hist_data_bar_values
decoder_weights_dist sourceSetName"""
)
ACTIVATION = WORD.findall(
    """id tokens index layer modelId maxValue maxValueTokenIndex minValue values creatorId dataSource dataIndex
dfaValues dfaTargetIndex dfaMaxValue createdAt lossValues logitContributions binMin binMax binContains
qualifyingTokenIndex zIndices zValues"""
)
EXPLANATION = WORD.findall(
    """id modelId layer index description authorId embedding triggeredById typeName explanationModelName notes
createdAt"""
)
SAE = "4-small"


def test_the_import_folder_has_the_importer_s_columns(small_store, tmp_path):
    out = written(small_store, "neuronpedia", tmp_path)
    opened = subject(small_store)
    folder = f"planted/{SAE}/"
    for name in ("release", "model", "sourceset", "source"):
        (row,) = out.read(f"{folder}{name}.jsonl").splitlines()
        assert json.loads(row)["creatorId"]
    features, activations, explanations = (
        json_lines(out, f"{folder}{name}/batch-0.jsonl.gz") for name in ("features", "activations", "explanations")
    )
    assert [int(row["index"]) for row in features] == opened.active.tolist()
    assert all(sorted(row) == sorted(FEATURE) for row in features)
    assert all(sorted(row) == sorted(ACTIVATION) for row in activations)
    assert all(sorted(row) == sorted(EXPLANATION) for row in explanations)
    ids = [row["id"] for row in [*activations, *explanations]]
    assert len(set(ids)) == len(ids)
    assert {len(one) for one in ids} == {25}
    assert {row["typeName"] for row in explanations} == {"kubesae_signature-no-llm"}
    assert {row["explanationModelName"] for row in explanations} == {None}
    assert explanations[0]["description"] == "token 'w2'"
    assert features[2]["topkCosSimIndices"] == [3]
    for row in activations:
        assert row["values"][row["maxValueTokenIndex"]] == row["maxValue"] == max(row["values"])
        assert row["minValue"] == min(row["values"])
    assert json.loads(out.read(f"{folder}source.jsonl"))["notes"].startswith("kubesae: {")


def test_the_same_rows_are_in_dashboards_and_import(small_store, tmp_path):
    batch = json.loads(written(small_store, "sae-dashboard", tmp_path, "1-4").read("batch-0.json"))
    out = written(small_store, "neuronpedia", tmp_path, "1-4")
    shown = [one["values"] for feature in batch["features"] for one in feature["activations"]]
    assert [row["values"] for row in json_lines(out, f"planted/{SAE}/activations/batch-0.jsonl.gz")] == shown


@hypothesis.given(texts=st.lists(st.text() | st.sampled_from(["\0", "\\u0000", "a\0b\n"])))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_a_row_is_a_line_without_nul(texts):
    data = lines([{"tokens": texts, "label": "".join(texts), "index": 3, "values": [0.5]}])
    assert data.count(b"\n") == 1
    wanted = [text.replace("\0", "") for text in texts]
    assert json.loads(data) == {"tokens": wanted, "label": "".join(wanted), "index": 3, "values": [0.5]}
