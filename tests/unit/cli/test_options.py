"""Flags: text fields are taken as they are, the others are read as YAML."""

import pytest

from kubesae.cli.options import choose_sae, parse_flag
from kubesae.experiment import Experiment


@pytest.mark.parametrize("value", ["2024", "", "a: b", "x #y", "true"])
def test_text_is_taken_as_it_is(value):
    assert parse_flag("data", value) == value


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("tokens", "1e9", 1_000_000_000),
        ("sae.0.lr", "3e-4", 3e-4),
        ("layers", "30,45,55", [30, 45, 55]),
        ("layers", "[7]", [7]),
        ("storage", "float32", "float32"),
    ],
)
def test_other_fields_are_read_as_in_the_file(field, text, value):
    assert parse_flag(field, text) == value


@pytest.mark.parametrize(
    ("saes", "flag", "chosen"),
    [
        ([{"name": "a"}], None, "a"),
        ([{"name": "a"}], "b", "b"),
        ([{"name": "a"}, {"name": "b"}], None, None),
        ([{}], None, None),
    ],
)
def test_a_command_is_about_the_experiments_sae(saes, flag, chosen):
    values = {"data": "d", "model": "m", "layers": [0], "corpora": [{"name": "c", "source": "s"}], "sae": saes}
    assert choose_sae(Experiment.model_validate(values), flag) == chosen
