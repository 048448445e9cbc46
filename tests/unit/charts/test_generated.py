"""What is made of the charts' values.yaml is up to date, whole, and closed to what it does not know."""

from __future__ import annotations

import re

import pytest
import yaml
from chart_schema import CHARTS, chart_schema, experiment_facts, generated, read_values

from kubesae.experiment import Experiment

# Fields of an experiment that may change between releases over the same data.
LEAVES_THE_DATA = {
    "name", "output", "trust_remote_code", "chunk", "pilot", "collect", "verify", "sae", "interpret",
}  # fmt: skip


@pytest.mark.parametrize(("path", "text"), list(generated()), ids=lambda value: getattr(value, "name", ""))
def test_it_is_what_the_generator_makes(path, text):
    assert path.read_text(encoding="utf-8") == text, f"{path}: run tools/chart_schema.py"


@pytest.mark.parametrize("chart", ["experiment", "operator"])
def test_every_value_is_documented(chart):
    text = (CHARTS / chart / "values.yaml").read_text(encoding="utf-8")
    documented = {value.path for value in read_values(text)}

    def undocumented(values, path=()):
        for name, value in values.items():
            here = (*path, name)
            if here in documented:
                continue
            if isinstance(value, dict) and value:
                yield from undocumented(value, here)
            else:
                yield ".".join(here)

    assert list(undocumented(yaml.safe_load(text))) == []
    assert all(value.description.endswith(".") for value in read_values(text))


@pytest.mark.parametrize("chart", ["experiment", "operator"])
def test_no_section_takes_a_field_that_it_does_not_know(chart):
    values = list(read_values((CHARTS / chart / "values.yaml").read_text(encoding="utf-8")))
    schema = chart_schema(values, experiment=chart == "experiment")
    # Kubernetes' own objects are passed on as they are, and so are maps of labels and the like.
    passed_on = re.compile(
        r"securityContext|podSecurityContext|affinity|tolerations|topologySpread|extra|egress|global|"
        r"[lL]abels|[aA]nnotations|nodeSelector|requests|limits"
    )

    def open_sections(node, path=""):
        if isinstance(node, dict):
            is_open = node.get("type") == "object" and node.get("additionalProperties") is not False
            if is_open and not passed_on.search(path):
                yield path
            for name, value in node.items():
                yield from open_sections(value, f"{path}/{name}")

    assert list(open_sections(schema)) == []


def test_every_field_of_an_experiment_decides_the_data_or_does_not():
    decides = set(experiment_facts()["decidesData"])
    assert decides | LEAVES_THE_DATA == set(Experiment.model_fields)
    assert not decides & LEAVES_THE_DATA


def test_the_charts_have_the_programs_version():
    from kubesae import __version__

    for chart in ("experiment", "operator"):
        about = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text(encoding="utf-8"))
        assert about["appVersion"] == __version__
