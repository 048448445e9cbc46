"""Experiment files: what is wrong is said by field, with the value and what to do, and never as a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kubesae.errors import EXIT_USER, ConfigError
from kubesae.experiment import DataIdentity, Experiment, load_experiment, set_field, validate

if TYPE_CHECKING:
    from pathlib import Path

BASE = """
data: out
model: some/model
layers: [1, 4]
corpora:
  - {name: text, source: some/dataset}
"""


def load(folder: Path, text: str, overrides: dict[str, Any] | None = None) -> Experiment:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return load_experiment(path, overrides)


def refused(folder: Path, text: str, overrides: dict[str, Any] | None = None) -> list[str]:
    """Return the lines of the error that the file gives, without the first."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, overrides)
    assert caught.value.exit_code == EXIT_USER
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_defaults_fill_what_is_not_said(tmp_path: Path) -> None:
    experiment = load(tmp_path, BASE)
    assert (experiment.tokens, experiment.num_shards, experiment.layers) == (1_000_000_000, 4, (1, 4))
    assert (experiment.pilot.tokens, experiment.pilot.chunk, experiment.chunk) == (10_000_000, 5_000_000, 10_000_000)
    assert (experiment.sae[0].l1_coeff, experiment.sae[0].lr, experiment.output_prefix) == (1e-3, None, "out")


def test_numbers_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    experiment = load(tmp_path, BASE + "tokens: 250_000_000\nchunk: 1e7\npilot: {tokens: 2e6}\nsae: [{lr: 3e-4}]\n")
    assert (experiment.tokens, experiment.chunk, experiment.pilot.tokens) == (250_000_000, 10**7, 2 * 10**6)
    assert experiment.sae[0].lr == 0.0003


def test_helms_json_is_read_as_the_file_that_it_was_made_from(tmp_path: Path) -> None:
    """Helm writes every number that passed through it as a floating-point one, and YAML's whole as JSON."""
    text = (
        '{"corpora":[{"name":"text","source":"some/dataset","weight":0.7}],"data":"s3://bucket/a","layers":[45],'
        '"model":"/models/K2","name":"exp","pilot":{"chunk":5e+06,"tokens":1e+07},"sae":[{"k":64,"lr":3e-05,"name":"a"}],'
        '"tokens":1e+09,"trust_remote_code":true}\n'
    )
    experiment = load(tmp_path, text)
    assert (experiment.tokens, experiment.pilot.tokens, experiment.pilot.chunk) == (10**9, 10**7, 5 * 10**6)
    assert all(type(value) is int for value in (experiment.tokens, experiment.pilot.tokens, experiment.layers[0]))
    assert (experiment.sae[0].lr, experiment.corpora[0].weight, experiment.trust_remote_code) == (3e-5, 0.7, True)


def test_an_experiment_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path, BASE).tokens = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("toknes: 3", "toknes: there is no such field. Did you mean tokens?"),
        ("pilot: {token: 3}", "pilot.token: there is no such field. Did you mean tokens?"),
        ("sae: [{l1: 3}]", "sae.0.l1: there is no such field. The fields here are: architecture, auxk_coeff,"),
        ("sae: [{k: 3}, {l1_coef: 3}]", "sae.1.l1_coef: there is no such field. Did you mean l1_coeff?"),
        (
            "tokens: many",
            "tokens: Input should be a valid integer, unable to parse string as an integer (it is 'many')",
        ),
        ("tokens: 1.5", "tokens: Input should be a valid integer, got a number with a fractional part (it is 1.5)"),
        ("tokens: 0", "tokens: Input should be greater than 0 (it is 0)"),
        ("tokens: 2024-01-01", "tokens: Input should be a valid integer"),
        ("pilot: 3", "pilot: must be a section (it is 3). Write `field: value` lines below it."),
        ("storage: int8", "storage: Input should be 'bfloat16', 'float32' or 'int8-block32' (it is 'int8')"),
        ("sae: {k: 3}", "sae: must be a list (it is {'k': 3}). Write [{'k': 3}]."),
        ("sae: [{validation: 1}]", "sae.0.validation: Input should be less than 1 (it is 1)"),
        ("seed: 1e400", "seed: Input should be a finite number (it is inf)"),
        ("1: 2", "1: Keys should be strings (it is 1)"),
    ],
)
def test_a_bad_field_is_named_with_its_value(tmp_path: Path, text: str, line: str) -> None:
    lines = refused(tmp_path, BASE + text + "\n")
    assert len(lines) == 1
    assert lines[0].startswith(line)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("model: some/model\n", "", "model: is required."),
        ("[1, 4]", "[4, 1]", "layers must ascend: [4, 1]"),
        ("[1, 4]", "[1, 1]", "layers names a layer twice: [1, 1]"),
        ("[1, 4]", "[]", "layers: List should have at least 1 item after validation, not 0 (it is [])"),
        ("[1, 4]", "[-1]", "layers.0: Input should be greater than or equal to 0 (it is -1)"),
        ("[1, 4]", "[1, b]", "layers.1: Input should be a valid integer"),
        (
            "{name: text",
            "{name: Text",
            "corpora.0.name: must be a name of lower-case letters, digits and dashes (it is 'Text').",
        ),
        ("{name: text", "{nam: text", "corpora.0.name: is required."),
        ("source: some/dataset", "source: [a]", "corpora.0.source: Input should be a valid string (it is ['a'])"),
    ],
)
def test_a_bad_list_is_explained_by_its_elements_alone(tmp_path: Path, old: str, new: str, line: str) -> None:
    lines = refused(tmp_path, BASE.replace(old, new))
    assert lines[0].startswith(line)
    assert not any("at least 1 item" in other for other in lines[1:])


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    lines = refused(tmp_path, BASE.replace("{name: text", "{nam: text") + "tokens: x\nchunks: 3\n")
    assert lines == [
        "corpora.0.name: is required. It is the name of the corpus in reports and in every row's origin.",
        "corpora.0.nam: there is no such field. Did you mean name?",
        "tokens: Input should be a valid integer, unable to parse string as an integer (it is 'x')",
        "chunks: there is no such field. Did you mean chunk?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contexts_per_block: 17", r"contexts_per_block \(17\) is more than contexts_per_part \(16\)"),
        ("tokens: 3", "3 tokens cannot fill 4 shards"),
        ("sae: [{layer: 2}]", r"an SAE names layer 2, which is not in layers \[1, 4\]"),
        ("contexts_per_part: 600", "2 layers with 600 blocks a part do not fit into a commit record of 4096 bytes"),
    ],
)
def test_fields_that_contradict_each_other(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, BASE + text)


def test_two_corpora_need_two_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two corpora have the same name"):
        load(tmp_path, BASE + "  - {name: text, source: other}\n")


def test_a_file_that_is_missing_or_is_not_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read the experiment file .*nowhere\.yaml.*No such file"):
        load_experiment(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="Cannot read the experiment file"):
        load_experiment(tmp_path)
    (tmp_path / "latin1.yaml").write_bytes(b"data: \xe9")
    with pytest.raises(ConfigError, match="Cannot read the experiment file"):
        load_experiment(tmp_path / "latin1.yaml")
    for text, message in (
        ("data: [", "is not valid YAML"),
        ("- 1", "must be a mapping of fields, but holds list"),
        ("", "must be a mapping of fields, but holds NoneType"),
        ("tokens: 1\ntokens: 2", "the key 'tokens' is given twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(tmp_path, text)


def test_overrides_are_laid_over_the_file(tmp_path: Path) -> None:
    changes = {"tokens": 5000, "pilot.tokens": 7, "sae.0.lr": 1e-2, "corpora.0.weight": 2}
    experiment = load(tmp_path, BASE + "tokens: 9\nsae: [{k: 3, lr: 1}, {k: 4}]\n", changes)
    assert (experiment.tokens, experiment.pilot.tokens, experiment.corpora[0].weight) == (5000, 7, 2)
    assert [(sae.k, sae.lr) for sae in experiment.sae] == [(3, 1e-2), (4, None)]
    assert load(tmp_path, BASE, {"sae.0.lr": 1e-2}).sae[0].lr == 1e-2


@pytest.mark.parametrize(
    ("text", "field"),
    [("pilot: 3", "pilot.tokens"), ("pilot:", "pilot.tokens"), ("sae: []", "sae.0.lr"), ("sae: 1", "sae.0.lr")],
)
def test_an_override_in_a_section_that_is_none_is_refused(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} cannot be set, as .* holds no fields"):
        load(tmp_path, BASE + text + "\n", {field: 1})


def test_set_field_makes_the_sections_on_the_way() -> None:
    values: dict[str, Any] = {}
    set_field(values, "pilot.tokens", 1)
    set_field(values, "sae.0.k", 2)
    set_field(values, "tokens", 3)
    assert values == {"pilot": {"tokens": 1}, "sae": [{"k": 2}], "tokens": 3}


def test_stored_models_are_validated_by_the_same_code() -> None:
    with pytest.raises(ConfigError, match="the store: 14 fields are not right:\n  tokens_manifest: is required"):
        validate(DataIdentity, {"formt": 1}, "the store")
